"""settings: what the environment says becomes one value, addresses have one form, and secrets stay out of sight."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import platformdirs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolkit.errors import HomeUnusable, RequestInvalid
from toolkit.settings import ServerAddress, Settings, default_home, parse_servers, remember_servers, remembered_servers

relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault

# ---- addresses ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8188", "http://localhost:8188"),
        ("http://h:8188/comfy/", "http://h:8188/comfy"),
        ("  HTTP://Host.Example:80/ ", "http://host.example"),
        ("https://h:443", "https://h"),
        ("https://h:80", "https://h:80"),
        ("http://h:443", "http://h:443"),
        ("[::1]:8188", "http://[::1]:8188"),
        ("http://[2001:DB8::1]", "http://[2001:db8::1]"),
        ("https://user:pw@h", "https://h"),
        ("http://h/a/b//?q=1#f", "http://h/a/b"),
        ("http://küche.example", "http://xn--kche-0ra.example"),
        ("engine", "engine"),
        (" Engine ", "engine"),
        ("http://engine", "http://engine"),
    ],
)
def test_an_address_has_one_form(text, url):
    assert ServerAddress.parse(text).url == url


def test_only_the_word_means_the_engine():
    assert ServerAddress.parse("ENGINE").is_engine
    assert not ServerAddress.parse("http://engine").is_engine
    assert ServerAddress.parse("engine").secret_url == "engine"


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://h", "://h", "http://", "http://:8188", "", "  ", "h:99999", "h:x", "http://[::1", "http://[zz]"),
        *("my server", "http://h\\x", "http://a\tb", "h/a b", "ü..b"),
    ],
)
def test_what_is_no_address_is_refused_in_a_sentence(text):
    with pytest.raises(RequestInvalid, match=r"is not the address of a ComfyUI server|names no host"):
        ServerAddress.parse(text)


parts = st.tuples(
    st.sampled_from(["", "http://", "HTTPS://", "//", "ws://"]),
    st.sampled_from(["", "ann@", "ann:p%40w@", ":@", "a:b:c@", "ä:ö@"]),
    st.sampled_from(["h", "H.example.", "[::1]", "127.0.0.1", "ü.de", "::1", "a b", "-", "x_y", "%41"]) | st.text(max_size=6),
    st.sampled_from(["", ":", ":80", ":443", ":8188", ":0", ":x", ":99999"]),
    st.sampled_from(["", "/", "//", "/a/", "/a b", "/a?b", "#c", "/%20/", ";p", "/ä/.."]) | st.text("/a?#%@: ", max_size=6),
).map("".join)


@relaxed
@given(parts | st.text())
@example("http://h/a /")
@example("http://h//")
@example("h/\x00")
@example("http://İ.de")
def test_parsing_an_address_twice_changes_nothing(text):
    try:
        address = ServerAddress.parse(text)
    except RequestInvalid:
        return
    assert ServerAddress.parse(address.url) == ServerAddress(address.url)
    again = ServerAddress.parse(address.secret_url)
    assert (again.url, again.user) == (address.url, address.user)


@relaxed
@given(st.text(min_size=1), st.text())
def test_credentials_survive_in_the_secret_address_and_nowhere_else(user, password):
    address = ServerAddress("https://h:8443/comfy", user, password)
    again = ServerAddress.parse(address.secret_url)
    assert (again.url, again.user, again.password or "") == (address.url, user, password)
    assert repr(password) not in repr(address) or password in ("", user)


@pytest.mark.parametrize("text", ["http://ann:s3cret@h", "ann:s3cret@h:8188"])
def test_a_parsed_address_shows_no_password(text):
    address = ServerAddress.parse(text)
    assert (address.user, address.password) == ("ann", "s3cret")
    assert "s3cret" not in f"{address!r} {address} {address.url}"


REFUSED = [
    ("ftp://", "s3cret@h"), ("", "s3cret@h:99999"), ("http://", "s3cret@[::1"), ("http://", "s3/cret@h"), ("http://", "s3cret@"), ("", "s3cret@a b"),
]  # fmt: skip


@pytest.mark.parametrize("text", [f"{scheme}ann:{rest}" for scheme, rest in REFUSED])
def test_a_refused_address_shows_no_password(text):
    with pytest.raises(RequestInvalid) as refused:
        ServerAddress.parse(text)
    assert "s3" not in str(refused.value)
    assert "cret" not in str(refused.value)


def test_a_list_of_servers_keeps_its_order_and_drops_doubles():
    found = parse_servers(" http://b:1/, a:2 ,,http://B:1, engine,")
    assert [address.url for address in found] == ["http://b:1", "http://a:2", "engine"]
    assert parse_servers("") == ()


# ---- the environment ------------------------------------------------------------------------------------------------------------------


def test_an_empty_environment_gives_the_written_defaults(tmp_path):
    settings = Settings.read({}, folder=tmp_path)
    assert (settings.host, settings.port, settings.feed_port, settings.token, settings.servers, settings.headers) == ("127.0.0.1", 7860, 8329, None, (), {})
    assert settings.feeder_idle_s == 60.0
    assert settings.home == platformdirs.user_data_path("anime-toolkit", appauthor=False)


def test_the_environment_decides(tmp_path):
    settings = Settings.read(
        {
            "TOOLKIT_HOME": str(tmp_path), "COMFYUI_URL": "http://a:1,http://b:2", "COMFYUI_HEADERS": '{"X-Key": "1"}', "TOOLKIT_HOST": "0.0.0.0",
            "TOOLKIT_PORT": "0", "TOOLKIT_FEED_PORT": "65535", "TOOLKIT_TOKEN": "t0ken", "TOOLKIT_FEEDER_IDLE_S": "0.5",
        }
    )  # fmt: skip
    assert (settings.home, settings.host, settings.port, settings.feed_port) == (tmp_path, "0.0.0.0", 0, 65535)
    assert [server.url for server in settings.servers] == ["http://a:1", "http://b:2"]
    assert (settings.headers, settings.token, settings.feeder_idle_s) == ({"X-Key": "1"}, "t0ken", 0.5)


def test_empty_variables_count_as_unset(tmp_path):
    names = ("TOOLKIT_HOME", "COMFYUI_URL", "COMFYUI_HEADERS", "TOOLKIT_HOST", "TOOLKIT_PORT", "TOOLKIT_FEED_PORT", "TOOLKIT_TOKEN", "TOOLKIT_FEEDER_IDLE_S")
    assert Settings.read(dict.fromkeys(names, ""), folder=tmp_path) == Settings.read({}, folder=tmp_path)


def test_the_processes_own_environment_is_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("TOOLKIT_HOME", str(tmp_path / "mine"))
    assert Settings.read().home == tmp_path / "mine"


def test_the_argument_wins_over_the_variable_and_homes_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert Settings.read({"TOOLKIT_HOME": "/elsewhere"}, home="here").home == tmp_path / "here"
    assert Settings.read({"TOOLKIT_HOME": "~/toolkit"}).home == tmp_path / "me" / "toolkit"


def test_settings_show_no_secret(tmp_path):
    settings = Settings.read({"COMFYUI_URL": "http://ann:s3cret@h", "COMFYUI_HEADERS": '{"X-Key": "s3cret"}', "TOOLKIT_TOKEN": "s3cret"}, home=tmp_path)
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TOOLKIT_PORT", "70000"),
        ("TOOLKIT_PORT", "-1"),
        ("TOOLKIT_FEED_PORT", "http"),
        ("COMFYUI_HEADERS", "X-Key: 1"),
        ("COMFYUI_HEADERS", "[1]"),
        ("COMFYUI_HEADERS", '{"X-Key": 1}'),
        ("TOOLKIT_FEEDER_IDLE_S", "soon"),
        ("TOOLKIT_FEEDER_IDLE_S", "-1"),
        ("TOOLKIT_FEEDER_IDLE_S", "nan"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(name, text):
    with pytest.raises(RequestInvalid, match=name) as refused:
        Settings.read({name: text})
    assert refused.value.field == name


# ---- the home -------------------------------------------------------------------------------------------------------------------------


def test_the_home_of_a_checkout_is_its_data_folder_from_anywhere_inside(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "anime-toolkit"\n')
    inside = tmp_path / "notebooks" / "deep"
    inside.mkdir(parents=True)
    (tmp_path / "notebooks" / "pyproject.toml").write_text('[project]\nname = "another"\n')
    assert default_home(inside) == default_home(tmp_path) == tmp_path / "data"


@pytest.mark.parametrize("text", [b'[project]\nname = "another"', b"= broken", b"\xff\xfe", b"project = 3", b""])
def test_another_projects_file_makes_no_checkout(tmp_path, text):
    (tmp_path / "pyproject.toml").write_bytes(text)
    assert default_home(tmp_path) == platformdirs.user_data_path("anime-toolkit", appauthor=False)


def test_remembered_servers_come_back_with_their_credentials(tmp_path):
    servers = parse_servers("http://ann:p%40w@h:8188/x,https://b,engine")
    remember_servers(tmp_path / "new" / "home", servers)
    assert remembered_servers(tmp_path / "new" / "home") == servers
    assert servers[0].password == "p@w"


def test_a_home_that_was_never_connected_remembers_nothing(tmp_path):
    assert remembered_servers(tmp_path) == ()


def test_the_settings_file_is_its_owners_only_and_leaves_no_part(tmp_path):
    remember_servers(tmp_path, parse_servers("http://a"))
    remember_servers(tmp_path, parse_servers("http://ann:pw@b"))
    assert stat.S_IMODE((tmp_path / "settings.json").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["settings.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"servers": null}', '{"servers": [5]}', '{"servers": ["ftp://h"]}', "\udcff"])
def test_a_broken_settings_file_is_one_sentence(tmp_path, text):
    (tmp_path / "settings.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(HomeUnusable, match=r"settings.json cannot be read.*toolkit connect URL"):
        remembered_servers(tmp_path)


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable, match=r"cannot be written: Not a directory. Set TOOLKIT_HOME") as refused:
        remember_servers(tmp_path / "file" / "home", ())
    assert refused.value.path == str(tmp_path / "file" / "home")


def test_remembering_keeps_the_old_file_when_the_new_one_fails(tmp_path, monkeypatch):
    remember_servers(tmp_path, parse_servers("http://a"))

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HomeUnusable, match="No space left"):
        remember_servers(tmp_path, parse_servers("http://b"))
    assert json.loads((tmp_path / "settings.json").read_text()) == {"servers": ["http://a"]}
    assert remembered_servers(Path(tmp_path)) == parse_servers("http://a")
