"""Words for failures: what a server's refusal, silence or a node's exception means, where it is, and what to try.

Owns kinds, sentences and hints, so that they are the same wherever a failure shows, and keeps secrets out of them. Pure: a graph, its
recipe and the server's catalog arrive as arguments. Knows no job: what a failure does to one is decided in feeder/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapidfuzz import process as fuzzy
from rapidfuzz.fuzz import ratio

from toolkit.graph import InputSpec, NodeCatalog, title_of, validate
from toolkit.protocol import Failure, NodeError, Rejection
from toolkit.roles import MODEL_INPUTS

SHOWN_CHOICES = 6
SECRET_FROM = 4  # characters: a shorter secret is found in any text by chance
CREDENTIALS = re.compile(
    r"(://)[^/\s@]+(?=@)|((?:authorization|key|token|password|secret)['\"]?\s*[:=]\s*['\"]?(?:(?:basic|bearer)\s+)?)[^\s'\"&,;]+", re.IGNORECASE
)
MODEL_FILE = re.compile(r"([^\\/'\"\s:]+\.(?:safetensors|sft|ckpt|pth?|gguf|bin))\b", re.IGNORECASE)
FOLDER = re.compile(r"models[\\/](\w+)[\\/]")
PACK = re.compile(r"custom_nodes[\\/]([^\\/\"']+)")
GRAPH_HINTS: Mapping[str, str] = {
    "prompt_no_outputs": "Add a SaveImage or SaveVideo node.",
    "no_prompt": "Export the workflow with File > Export (API).",
    "dependency_cycle": "A node cannot feed itself: take one of these links out.",
}
KINDS: Sequence[tuple[str, re.Pattern[str], str]] = (
    ("oom", re.compile("outofmemory|out of memory|allocate memory|allocation on device|not enough memory"), "Use a smaller size or batch, or fewer frames."),
    ("server_disk_full", re.compile("no space left|enospc|disk quota"), "The server's disk is full: make room there, then retry."),
    ("nan", re.compile(r"\bnans?\b"), "Numbers overflowed: start the server with --fp32-vae or --force-upcast-attention, or lower cfg, then retry."),
    ("missing_model", re.compile("filenotfounderror|no such file|safetensor|incomplete metadata"), "A file is missing or broken on the server."),
    ("interrupted", re.compile("interruptprocessing"), "Somebody stopped it on the server: retry it if that was a mistake."),
)


@dataclass(frozen=True, slots=True)
class Words:
    """One failure in words: its kind, where and why, the class of the node it is about, what to try."""

    kind: str
    message: str
    node: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


def without_secrets(said: Any, secrets: Sequence[str] = ()) -> Any:
    """A text, or all texts of a JSON value, with these secrets and whatever looks like credentials replaced by ***."""
    match said:
        case str():
            for secret in sorted((secret for secret in secrets if len(secret) >= SECRET_FROM), key=len, reverse=True):
                said = said.replace(secret, "***")
            return CREDENTIALS.sub(r"\1\2***", said)
        case Mapping():
            return {name: without_secrets(value, secrets) for name, value in said.items()}
        case list() | tuple():
            return [without_secrets(value, secrets) for value in said]
        case _:
            return said


# ---- refused before it ran --------------------------------------------------------------------------------------------------


def refusal_words(rejection: Rejection, graph: Mapping[str, Any], catalog: NodeCatalog | None = None) -> list[Words]:
    """Every fault the server found, never none; where it does not say enough, the graph is held against the catalog here."""
    if rejection.errors:
        return [_fault_words(error, graph, catalog) for error in rejection.errors]
    said, hint = rejection.message.rstrip("."), GRAPH_HINTS.get(rejection.kind, "Look at the server's own log.")
    own = validate(graph, catalog) if catalog is not None else []
    return [Words(rejection.kind, f"The server refused the graph: {said}.", None, str(own[0]) if own and rejection.kind not in GRAPH_HINTS else hint)]


def _fault_words(error: NodeError, graph: Mapping[str, Any], catalog: NodeCatalog | None) -> Words:
    node = graph.get(error.node_id, {})
    class_type = error.class_type if error.class_type != "?" else str(node.get("class_type") or "?")
    detail, hint = _detail(error, node, class_type, graph, catalog or NodeCatalog({}))
    return Words(error.kind, f"{_place(error.node_id, class_type, graph)}: {error.message.rstrip('.')}{f' - {detail}' if detail else ''}.", class_type, hint)


def _detail(error: NodeError, node: Mapping[str, Any], class_type: str, graph: Mapping[str, Any], catalog: NodeCatalog) -> tuple[str, str]:
    """What was received and what is allowed, and the next step."""
    name, inputs = error.input or "", node.get("inputs")
    value = error.about.get("received_value", inputs.get(name) if isinstance(inputs, Mapping) else None)
    spec = _spec(error, class_type, catalog)
    takes = _takes(spec, error.details)
    match error.kind:
        case "required_input_missing":
            return f"`{name}`", f"Set `{name}`" + (f": it takes {takes}." if takes else ".")
        case "value_not_in_list" | "custom_validation_failed":
            reason = error.details.removeprefix(f"{name} - ") if error.kind.startswith("custom") else ""
            return _received(name, value, takes, reason), _choice_hint(name, value, spec)
        case "value_smaller_than_min" | "value_bigger_than_max" | "invalid_input_type":
            bound = None if spec is None else {"s": spec.minimum, "b": spec.maximum}.get(error.kind[6])
            return _received(name, value, takes), f"Set `{name}` to {'a value it takes' if bound is None else f'{bound:g}'}."
        case "bad_linked_input":
            return _received(name, value, takes), f'Make `{name}` a link ["node id", slot].'
        case "return_type_mismatch":
            given, source = error.about.get("received_type"), next(iter(error.about.get("linked_node") or ()), None)
            from_node = f" from {_place(str(source), '', graph)}" if source is not None else ""
            return f"`{name}` takes {takes or 'another type'}, but gets {given or 'something else'}{from_node}", f"Link `{name}` to another output."
        case "invalid_prompt" | "missing_node_type":
            near = catalog.nearest(class_type) if catalog.classes() and "class_type" in node else None
            known = f"Did you mean {near}?" if near else "Install the node pack that brings it, or remove the node."
            return "", known if "class_type" in node or class_type != "?" else "Export the workflow with File > Export (API)."
    own = next((fault for fault in validate(graph, catalog) if fault.node_id == error.node_id), None) if catalog.classes() else None
    if own is not None:
        return own.message.rstrip("."), own.hint or "Correct it in the workflow."
    return ": ".join(
        part for part in (name and f"`{name}`", error.details) if part
    ), "Look at this node's links: one leads to nothing, or the node lacks `inputs`."


def _spec(error: NodeError, class_type: str, catalog: NodeCatalog) -> InputSpec | None:
    """What the input takes: in the server's own words of this refusal, else as its catalog had it."""
    config = error.about.get("input_config")
    if error.input and isinstance(config, list) and config:
        return NodeCatalog({class_type: {"input": {"required": {error.input: config}}}}).inputs(class_type)[error.input]
    return catalog.inputs(class_type).get(error.input or "") if class_type in catalog else None


def _takes(spec: InputSpec | None, details: str) -> str:
    """Allowed values in a few words: `one of euler, heun, ... (44)`, `INT, 1 to 10000`; empty if nobody says."""
    if spec is None:
        count = re.search(r"list of length (\d+)", details)
        return f"one of {count[1]} values" if count else ""
    if spec.choices is not None:
        more = f", ... ({len(spec.choices)})" if len(spec.choices) > SHOWN_CHOICES else ""
        return f"one of {', '.join(spec.choices[:SHOWN_CHOICES])}{more}" if spec.choices else "one of a list that is empty on this server"
    if spec.minimum is None or spec.maximum is None:
        return spec.type
    return f"{spec.type}, {spec.minimum} to {spec.maximum}" + (f" in steps of {spec.options['step']}" if spec.options.get("step") else "")


def _received(name: str, value: Any, takes: str, reason: str = "") -> str:
    shown = f"`{name}` is {value!r:.80}" if value is not None else f"`{name}`"
    return shown + (f" ({reason})" if reason else "") + (f"; it takes {takes}" if takes else "")


def _choice_hint(name: str, value: Any, spec: InputSpec | None) -> str:
    choices = (spec.choices or ()) if spec is not None else ()
    near = nearest(str(value), choices)
    if near is not None:
        return f"Did you mean {near}?"
    if name in MODEL_INPUTS:
        return f"Put the file into models/{MODEL_INPUTS[name]} of the server, or name one that it has."
    return "Choose one of these; a picture has to be uploaded first." if choices else "Name one that the server has."


def nearest(value: str, choices: Sequence[str]) -> str | None:
    """The choice most like a value; separators, case and the extension of a file do not count."""
    found = fuzzy.extractOne(value, choices, scorer=ratio, processor=_plain, score_cutoff=60) if value else None
    return found[0] if found else None


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", re.sub(r"\.[a-z]\w{1,10}$", "", text.lower()))


def _place(node_id: str, class_type: str, graph: Mapping[str, Any]) -> str:
    """A node by its title, class and id; an expanded one (`5.0.3`) by the title of the one that was sent."""
    node = graph.get(node_id) or graph.get(node_id.split(".")[0]) or {}
    class_type = class_type.strip("?") or str(node.get("class_type") or "A node")
    title = title_of(node_id, node) if node.get("class_type") else class_type
    return f"{class_type} (node {node_id})" if title == class_type else f"{title} ({class_type}, node {node_id})"


# ---- failed while it ran ----------------------------------------------------------------------------------------------------


def failure_words(failure: Failure | None, graph: Mapping[str, Any], recipe: Mapping[str, Any] | None = None, catalog: NodeCatalog | None = None) -> Words:
    """What an exception of a node means, where it came up, and what to try."""
    if failure is None:
        return Words("unknown", "The server says that it failed, not why.", None, "Look at the server's own log.")
    node = graph.get(failure.node_id or "", {})
    class_type = failure.class_type or node.get("class_type")
    where = _place(failure.node_id, str(class_type or ""), graph) if failure.node_id else "The server"
    cause = next((line.strip() for line in failure.message.splitlines() if line.strip()), "no message")
    kind, hint = _kind(failure, node, recipe or {}, _pack(failure, class_type, catalog))
    return Words(kind, f"{where}: {failure.exception.split('.')[-1]}: {cause}", class_type, hint)


def _kind(failure: Failure, node: Mapping[str, Any], recipe: Mapping[str, Any], pack: str | None) -> tuple[str, str | None]:
    text = f"{failure.exception} {failure.message}".lower()
    kind, hint = next(((kind, hint) for kind, words, hint in KINDS if words.search(text)), ("node_error", ""))
    if kind == "oom":
        return kind, _smaller(recipe) or hint
    if kind == "missing_model":
        advice = _file_advice(failure.message, node)
        kind, hint = (kind, advice) if advice else ("node_error", hint)
    if kind == "node_error" and pack is not None:
        return "custom_node", f"It came out of the node pack {pack}: update it, or look for this message among its issues."
    return kind, hint or None


def _smaller(recipe: Mapping[str, Any]) -> str | None:
    """What filled the memory, and the next smaller thing to try; None if nobody knows the size."""
    width, height, frames, batch = (int(recipe.get(name) or 0) for name in ("width", "height", "frames", "batch_size"))
    if not width or not height:
        return None
    used = f"{width}x{height}" + (f", {frames} frames" if frames > 1 else "") + (f", a batch of {batch}" if batch > 1 else "")
    size = "x".join(str(max(64, side * 3 // 4 // 32 * 32)) for side in (width, height))
    less = f"a batch of {batch // 2}" if batch > 1 else f"{(frames - 1) // 8 * 4 + 1} frames" if frames > 1 else ""  # 4n + 1 is what clips' models take
    return f"It had {used}; try something smaller: {f'{less} or ' if less else ''}{size}; or free the server's memory first."


def _file_advice(message: str, node: Mapping[str, Any]) -> str | None:
    """Which model file is missing or broken and where it belongs; None if it is about another file."""
    inputs = {name: value for name, value in (node.get("inputs") or {}).items() if name in MODEL_INPUTS and isinstance(value, str)}
    named = MODEL_FILE.search(message)
    file = named[1] if named else next(iter(inputs.values()), None)
    if file is None:
        return None
    said, own = FOLDER.search(message), next((name for name, value in inputs.items() if value.endswith(file)), None)
    folder = said[1] if said else MODEL_INPUTS[own] if own else None
    return f"{file} is missing or broken: put a whole one into models{f'/{folder}' if folder else ''} of the server."


def _pack(failure: Failure, class_type: str | None, catalog: NodeCatalog | None) -> str | None:
    """The custom node pack an exception came out of: by its innermost frame there, else by where the class comes from."""
    for line in reversed(failure.traceback):
        if found := PACK.search(line):
            return found[1].removesuffix(".py")
    about = catalog.object_info.get(class_type or "", {}) if catalog is not None else {}
    module = str(about.get("python_module") or "")
    return module.removeprefix("custom_nodes.") if module.startswith("custom_nodes.") else None


# ---- no answer, or a no before ComfyUI --------------------------------------------------------------------------------------

STATUSES: Mapping[int, tuple[str, str]] = {
    401: ("{url} wants a user and password (401).", "Write http://user:password@host, or set COMFYUI_HEADERS."),
    403: ("{url} refuses us (403).", "A proxy or ComfyUI's Origin check says no; see COMFYUI_HEADERS."),
    404: ("{url} does not have what was asked for (404).", "Does the address need a path, e.g. https://host/comfy?"),
    407: ("A proxy before {url} wants to know who asks (407).", "Set Proxy-Authorization in COMFYUI_HEADERS, or name ComfyUI's own address."),
    413: ("{url} refuses a body of this size (413).", "Start it with a larger --max-upload-size."),
    429: ("{url} has had too many questions from us (429).", "A proxy limits them: wait, or raise its limit for this address."),
    502: ("A proxy at {url} cannot reach ComfyUI (502).", "Start ComfyUI behind it, or look at the proxy's log."),
    503: ("A proxy at {url} says that ComfyUI is not available (503).", "Wait until it has started, or look at the proxy's log."),
    504: ("A proxy at {url} waited too long for ComfyUI (504).", "It may be loading a model; if this stays, raise the proxy's timeout."),
}
SILENCES: Sequence[tuple[str, str, str, str]] = (  # the first that fits: a class of the exception, part of its text, sentence, next step
    ("ClientConnectorCertificateError", "expired", "The certificate of {url} has expired.", "Renew it on the server."),
    ("ClientConnectorCertificateError", "not yet", "The certificate of {url} is not valid yet.", "Are the clocks of both machines right?"),
    ("ClientConnectorCertificateError", "mismatch", "The certificate of {url} is made out to another name.", "Use the name it is made out to."),
    (
        "ClientConnectorCertificateError", "", "{url} has a certificate that is not trusted: nobody known has signed it.",
        "Set SSL_CERT_FILE to its certificate, or to that of the authority that signed it.",
    ),
    ("ClientSSLError", "", "{url} does not speak TLS as it should.", "Write http:// if it has none, or look at its TLS settings."),
    ("ClientConnectorDNSError", "", "The name in {url} is unknown.", "Is it spelt right, and is the network or VPN up?"),
    (
        "ClientConnectorError", "", "No ComfyUI answers at {url}: nothing listens there, or the way is blocked.",
        "Start ComfyUI there, or name another server.",
    ),
    ("ConnectionTimeoutError", "", "{url} does not answer: no connection in time.", "Is the machine on, does a firewall let us through, https or http?"),
    ("SocketTimeoutError", "", "{url} does not answer in time.", "It may be busy loading a model: look at its own log."),
    ("ServerDisconnectedError", "", "{url} does not answer: it closed the connection.", "If it speaks TLS, write https://; else look at its own log."),
    ("ClientResponseError", "", "{url} does not answer with HTTP.", "Is the port right? ComfyUI's is 8188 as a rule."),
)  # fmt: skip


def status_words(status: int, url: str, location: str | None = None) -> tuple[str, str]:
    """A sentence and a next step for an HTTP status that says no; of a redirect, where it leads without what follows the `?`."""
    said, hint = STATUSES.get(status, (f"{{url}} answered {status}.", "Look at the server's own log."))
    if 300 <= status < 400:
        there = re.sub("//[^/]*@", "//", (location or "elsewhere").split("?")[0])[:200]
        said, hint = f"{{url}} sends us elsewhere ({status}): {there}.", "Name the address it leads to, or log in through COMFYUI_HEADERS."
    return said.replace("{url}", url), hint


def silence_words(kinds: Sequence[str], text: str, url: str) -> tuple[str, str | None]:
    """A sentence and a next step for an exception of the HTTP library: its class and the classes above it, by name, and its text."""
    fitting = ((said, hint) for kind, part, said, hint in SILENCES if kind in kinds and part in text)
    said, hint = next(fitting, (f"{{url}} does not answer ({kinds[0]}).", None))
    return said.replace("{url}", url), hint
