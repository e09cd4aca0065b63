"""A home with a long past: a ledger of any number of jobs, made up from a few recipes, servers and people, in bulk SQL.

The public way takes a transaction a step, which is right for one job and hours for a million. Times, models and files vary as they would for
three boxes over two years, one of which became slower with an upgrade; the numbers are drawn with a seed, so that two runs make the same past.
"""

from __future__ import annotations

import datetime
import json
import random
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.jobs import NodeTiming, Timings
from toolkit.ledger import Ledger, rows
from toolkit.requests import ImageRequest, VideoRequest
from toolkit.roles import stage_of

YEARS_S = 2 * 365 * 86_400.0
MODELS = ("animagine-xl-4.0", "illustrious-xl-v2", "noobai-vpred", "anima-preview", "ponyDiffusionV6XL")
SIZES = ((832, 1216), (1024, 1024), (1216, 832), (1664, 2432))
SAMPLERS = (("euler_ancestral", "normal"), ("dpmpp_2m", "karras"), ("euler", "simple"))
PROJECTS = ("fox", "owl", "default", "covers", "stickers", "tests", "cards", "wallpapers")
PEOPLE = (("owner", "notebook"), ("owner", "cli"), ("ann", "page"), ("ben", "rest"), ("owner", "observed"))
WORDS = (
    "1girl", "silver hair", "fox ears", "shrine", "forest", "rain", "lantern", "smile", "looking back", "wind", "cherry blossoms", "night", "city", "kimono",
    "detailed eyes",
)  # fmt: skip
STATUSES = ("done",) * 189 + ("failed",) * 4 + ("cancelled",) * 3 + ("lost",) * 2 + ("done_no_files", "rejected")
MOMENTS = (("accepted", "start"), ("accepted", "end"), ("started", "end"), ("p10", "end"), ("p25", "end"), ("p50", "end"), ("p75", "end"))
IMAGE = ("CheckpointLoaderSimple", "CLIPTextEncode", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode", "SaveImage")
VIDEO = (
    "UNETLoader",
    "CLIPLoader",
    "VAELoader",
    "CLIPTextEncode",
    "CLIPTextEncode",
    "Wan22ImageToVideoLatent",
    "KSampler",
    "VAEDecode",
    "CreateVideo",
    "SaveVideo",
)
URLS = ("http://a:8188", "http://b:8188", "http://c:8188", "engine")
VARIANTS = 60  # runs of one recipe on one server that differ in their times


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to make something, and its cost: seconds a step on the reference box."""

    kind: str
    model: str
    facts: Mapping[str, Any]
    graph: bytes
    step_s: float
    steps: int


@dataclass(frozen=True, slots=True)
class Ran:
    """How one run of a recipe went."""

    timings: str
    nodes: bytes
    run_s: float


def made_up_home(home: Path, jobs: int, seed: int = 1, waiting: int = 200) -> None:
    """Fill the ledger of a new home with so many jobs, the last `waiting` of them still in line."""
    ledger = Ledger(home)
    environments = _servers(ledger)
    ledger.close()
    with closing(sqlite3.connect(home / "ledger.sqlite", isolation_level=None)) as connection:
        for pragma in ("synchronous = OFF", "cache_size = -1500000", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        add_jobs(connection, environments, jobs, seed, waiting)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def add_jobs(connection: sqlite3.Connection, environments: Mapping[str, Sequence[str]], jobs: int, seed: int, waiting: int = 0) -> None:
    """Add so many jobs in one transaction."""
    connection.execute("BEGIN")
    (revision,) = connection.execute("SELECT revision FROM counter").fetchone()
    past = _Past(random.Random(seed), environments, revision, jobs)
    for start in range(0, jobs, 20_000):
        end = min(start + 20_000, jobs)
        tables: dict[str, list[tuple[Any, ...]]] = {name: [] for name in COLUMNS}
        for number in range(start, end):
            past.job(number, tables, waits=number >= jobs - waiting)
        for name, found in tables.items():
            marks = ", ".join("?" * len(COLUMNS[name].split(",")))
            connection.executemany(f"INSERT INTO {name} ({COLUMNS[name]}) VALUES ({marks})", found)
    connection.execute("UPDATE counter SET revision = ?", (revision + jobs,))
    connection.execute("COMMIT")


COLUMNS = {
    "jobs": "id, revision, status, kind, project, origin, person, priority, servers, group_id, group_name, request, request_hash, created_at, created, ended,"
    " attempt, error, failure_kind, failure_node, recipe",
    "attempts": "job_id, number, prompt_id, reason, server_url, epoch, environment_id, status, acknowledged, failure_kind, failure_node, message, sent,"
    " submitted, started, ended, run_s, timings, graph, nodes",
    "files": "job_id, number, attempt, node_id, name, kind, media_type, size_bytes, sha256, width, height, frames, fps, cached, temporary, blank, stored_at",
    "etas": "job_id, attempt, moment, target, basis, server_url, kind, made_at, made, expected_s, low_s, high_s, actual_s",
    "ratings": "job_id, output, person, verdict, stars, reasons, comment, rated_at",
}


def _servers(ledger: Ledger) -> dict[str, list[str]]:
    """Three boxes and the engine, one upgrade each in the middle of their time; returns their configurations, older first."""
    found: dict[str, list[str]] = {}
    for url, device in zip(URLS, ("RTX 3060", "RTX 4090", "RTX 5090", "drawn"), strict=True):
        ledger.name_server(url, url.removeprefix("http://")[:1] if url != "engine" else None, 0.4 if url != "engine" else None)
        facts = {"simulated": url == "engine", "device": device, "vram_bytes": 12 * 2**30, "os": "linux", "arguments": ["--listen"], "packs_hash": "5f0c"}
        found[url] = [ledger.remember_server(url, {**facts, "comfyui_version": version}, None, None) for version in ("0.3.64", "0.3.70")]
    return found


def _recipes() -> list[Recipe]:
    made = []
    for model in MODELS:
        for width, height in SIZES:
            for sampler, scheduler in SAMPLERS:
                facts = {
                    "family": "illustrious", "preset": "standard", "sampler": sampler, "scheduler": scheduler, "steps": 28, "cfg": 5.0, "denoise": 1.0,
                    "width": width, "height": height, "batch_size": 1, "frames": 1,
                }  # fmt: skip
                made.append(_recipe("image", model, facts, IMAGE, 0.09 * width * height / 1e6, 28))
    for width, height, frames in ((832, 480, 81), (1280, 704, 121)):
        facts = {
            "family": "wan22_5b", "preset": "draft", "sampler": "uni_pc", "scheduler": "simple", "steps": 20, "cfg": 5.0, "denoise": 1.0, "width": width,
            "height": height, "batch_size": 1, "frames": frames, "fps": 24.0,
        }  # fmt: skip
        made.append(_recipe("video", "wan2.2_ti2v_5B_fp16", facts, VIDEO, 0.05 * width * height * frames / 1e6, 20))
    return made


def _recipe(kind: str, model: str, facts: dict[str, Any], classes: Sequence[str], step_s: float, steps: int) -> Recipe:
    graph = {str(n): {"class_type": name, "inputs": {"text": " ".join(WORDS), "seed": n, "model": ["1", 0]}} for n, name in enumerate(classes, 1)}
    digest = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([kind, model, facts])).hex[:16]
    about = {**facts, "model": model, "models": [model], "parameters": {**facts, "model": f"{model}.safetensors"}, "graph_hash": digest}
    return Recipe(kind, model, about, rows.packed(graph), step_s, steps)


class _Past:
    """Draws one job after another."""

    def __init__(self, chance: random.Random, environments: Mapping[str, Sequence[str]], revision: int, jobs: int) -> None:
        self.chance, self.environments, self.revision = chance, environments, revision
        self.recipes = _recipes()
        self.began, self.every_s = 1.76e9, YEARS_S / max(jobs, 100_000)
        self.ran: dict[tuple[int, str, bool, bool], list[Ran]] = {}

    def job(self, number: int, tables: dict[str, list[tuple[Any, ...]]], *, waits: bool) -> None:
        """Append the rows of one job."""
        chance = self.chance
        which = min(int(chance.random() * (len(self.recipes) - 2) * 1.06), len(self.recipes) - 1)  # six in a hundred are clips
        recipe, url = self.recipes[which], URLS[3] if chance.random() < 0.05 else URLS[int(chance.random() * 3)]
        job_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        status = "queued" if waits else chance.choice(STATUSES)
        created = self.began + number * self.every_s + chance.random()
        later = number * self.every_s > YEARS_S / 2
        ran = chance.choice(self._runs(which, url, later, chance.random() < 0.2))
        waited = chance.expovariate(1 / 20)
        sent, started = created + waited, created + waited + 0.02 + chance.expovariate(2)
        ended = started + ran.run_s
        failed = status == "failed"
        why = ("Out of memory.", "oom", "KSampler") if failed else (None, None, None)
        tries = 0 if status in ("queued", "rejected") else 2 if status == "lost" else 1
        project, (person, origin), seed = chance.choice(PROJECTS), chance.choice(PEOPLE), chance.getrandbits(32)
        prompt = ", ".join(chance.sample(WORDS, 9))
        lora = [{"name": "mika_v3", "strength": round(chance.choice((0.6, 0.8, 1.0)), 1)}] if chance.random() < 0.1 else []
        probe = {"probe": "after" if later else "before"} if chance.random() < 0.001 else {}
        about = {**recipe.facts, "prompt": prompt, "negative_prompt": "worst quality, blurry", "seed": seed, "loras": lora, "simulated": url == "engine"}
        about["cfg"] = chance.choice((4.0, 5.0, 6.0))
        group = ("g1", "cfg test") if chance.random() < 0.002 else (None, None)
        tables["jobs"].append((
            job_id, self.revision + number + 1, status, recipe.kind, project, origin, person, 1, json.dumps([url]), *group,
            _request(recipe, prompt, seed, project, probe), f"{seed:032x}", created, _instant(created),
            None if waits else _instant(ended + 0.3), tries, *why, json.dumps(about) if tries else "{}",
        ))  # fmt: skip
        environment = self.environments[url][later]
        for attempt in range(1, tries + 1):
            ours = status if attempt == tries else "lost"
            prompt_id = job_id if attempt == 1 else str(uuid.UUID(int=chance.getrandbits(128), version=4))
            seen = ours not in ("lost", "cancelled")
            tables["attempts"].append((
                job_id, attempt, prompt_id, "first" if attempt == 1 else "lost", url, 1, environment, ours, 1, *why[1:], why[0], _instant(sent),
                _instant(sent + 0.005), _instant(started), _instant(ended + 0.3), ran.run_s if seen else None,
                ran.timings if seen else None, recipe.graph, ran.nodes if seen else None,
            ))  # fmt: skip
        if status == "done":
            self._ended_well(tables, job_id, number, recipe, url, project, (created, started, ended))

    def _ended_well(
        self, tables: dict[str, list[tuple[Any, ...]]], job_id: str, number: int, recipe: Recipe, url: str, project: str, at: tuple[float, float, float]
    ) -> None:
        chance, (created, started, ended) = self.chance, at
        clip = recipe.kind == "video"
        day = datetime.datetime.fromtimestamp(ended, datetime.UTC)
        facts = recipe.facts
        name = f"{project}/{day:%Y-%m-%d}/{day:%H%M%S}-{job_id[:8]}-{number}-1.{'mp4' if clip else 'png'}"
        size = int(2e6 * (0.5 + chance.random()))
        about = (recipe.kind, "video/mp4" if clip else "image/png", size, f"{chance.getrandbits(256):064x}", facts["width"], facts["height"])
        tables["files"].append((job_id, 1, 1, "7", name, *about, facts["frames"], facts.get("fps"), 0, 0, 0, ended + 0.3))
        run_s = ended - started
        for (moment, target), share in zip(MOMENTS, (0, 0, 0, 0.1, 0.25, 0.5, 0.75), strict=True):
            made = created if moment == "accepted" else started + share * run_s
            actual = (started if target == "start" else ended) - made
            expected = actual * chance.lognormvariate(0.0, 0.2)
            basis = "history" if chance.random() < 0.9 else "this_run" if share else "family"
            tables["etas"].append(
                (job_id, 1, moment, target, basis, url, recipe.kind, made, _instant(made), expected, expected * 0.75, expected * 1.35, actual)
            )
        if chance.random() < 0.1:
            verdict = "keep" if chance.random() < 0.3 else "reject"
            tables["ratings"].append((job_id, 1, "owner", verdict, None, "[]" if verdict == "keep" else '["hands"]', None, ended + 60))

    def _runs(self, which: int, url: str, later: bool, cold: bool) -> list[Ran]:
        key = (which, url, later, cold)
        if key not in self.ran:
            self.ran[key] = list(_runs(self.chance, self.recipes[which], url, later, cold))
        return self.ran[key]


def _runs(chance: random.Random, recipe: Recipe, url: str, later: bool, cold: bool) -> Iterator[Ran]:
    """Some runs of one recipe on one server: the second box became slower with its upgrade."""
    speed = {"http://a:8188": 2.0, "http://b:8188": 0.8, "http://c:8188": 0.6, "engine": 0.05}[url] * (1.22 if later and url == "http://b:8188" else 1.0)
    classes = IMAGE if recipe.kind == "image" else VIDEO
    for _ in range(VARIANTS):
        step_s = recipe.step_s * speed * chance.lognormvariate(0.0, 0.05)
        first_s = step_s + (2.0 * speed if cold else 0.01)
        took = {
            "load": 3.0 * speed if cold else 0.0,
            "encode": 0.05,
            "sample": first_s + step_s * (recipe.steps - 1),
            "decode": 0.2,
            "save": 0.1,
            "other": 0.001,
        }
        nodes = []
        for number, name in enumerate(classes, 1):
            stage = stage_of(name)
            sampler = stage == "sample"
            cached = stage == "load" and not cold
            steps = (recipe.steps, first_s, step_s) if sampler else (None, None, None)
            elapsed = 0.0 if cached else took[stage] * chance.lognormvariate(0.0, 0.1)
            nodes.append(NodeTiming(str(number), name, name, stage, recipe.model if stage == "load" else None, cached, 1.76e9, elapsed, *steps))
        by_stage = {stage: sum(node.elapsed_s or 0.0 for node in nodes if node.stage == stage) for stage in took}
        run_s = sum(by_stage.values())
        cached_nodes = sum(node.cached for node in nodes)
        timings = Timings(
            wait_home_s=20.0, wait_server_s=0.5, run_s=run_s, **{f"{stage}_s": seconds for stage, seconds in by_stage.items()}, fetch_s=0.2 * chance.random(),
            total_s=run_s + 21, first_step_s=first_s, step_s=step_s, warmth="cold" if cold else "warm", nodes_run=len(nodes) - cached_nodes,
            nodes_cached=cached_nodes, timed_by="events",
        )  # fmt: skip
        yield Ran(json.dumps(asdict(timings)), rows.node_rows(nodes), run_s)


def _request(recipe: Recipe, prompt: str, seed: int, project: str, labels: dict[str, str]) -> str:
    asked = ImageRequest if recipe.kind == "image" else VideoRequest
    if recipe.kind not in _REQUESTS:
        _REQUESTS[recipe.kind] = asked(prompt="p").as_json()
    return json.dumps({**_REQUESTS[recipe.kind], "prompt": prompt, "seed": seed, "project": project, "labels": labels, "model": recipe.model})


_REQUESTS: dict[str, dict[str, Any]] = {}


def _instant(wall: float) -> str:
    return f"{wall!r} {wall - 1.7e9!r} 5f0c2a1b"
