"""The About tab: who one is here, which servers draw, what they can make, what is missing and where it belongs."""

from __future__ import annotations

from toolkit import __version__
from toolkit.errors import ToolkitError
from toolkit.studio import ServerStatus, Studio
from toolkit.ui import cards
from toolkit.visitors import THE_OWNER, Visitor

KINDS = {"image": "pictures", "video": "clips"}


class About:
    """The servers, described."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def shown(self, visitor: Visitor = THE_OWNER) -> str:
        """Who looks, servers, models and what is missing as HTML; looks at servers that nobody watches yet."""
        try:
            servers = self._studio.servers()
            parts = [self._you(visitor)] + [self._server(server) for server in servers] + [self._missing(kind) for kind in KINDS]
        except ToolkitError as error:
            return cards.refusal(error, is_new=False)
        return f'{"".join(parts)}<p class="hush">anime-toolkit {__version__}. REST: <a href="api/docs">api/docs</a></p>'

    def _you(self, visitor: Visitor) -> str:
        """Of who signed in: their name, what is left of what they may have, and the way out."""
        if visitor.key is None:
            return ""
        people = self._studio._ledger.people
        guest = people.guest(visitor.person)
        facts = {"Name": visitor.person}
        if guest is not None:
            asked, waiting = people.used(guest.name)
            facts |= {"Within an hour": f"{asked} of {guest.quota.jobs_per_hour} jobs", "In line": f"{waiting} of {guest.quota.in_line} jobs"}
        rows = "".join(f"<dt>{name}</dt><dd>{cards.text(value)}</dd>" for name, value in facts.items())
        return f'<section class="box"><h2>You</h2><dl>{rows}</dl><p><a href="sign-in">Sign out</a></p></section>'

    def _server(self, server: ServerStatus) -> str:
        name = "Built-in engine" if server.simulated else f"ComfyUI {server.comfyui_version or ''}".strip()
        facts = {"Address": server.url, "Device": server.device, "State": server.sentence or server.state, "Speaks as": server.comfyui_version}
        facts |= {"Can make": ", ".join(server.can_make) or "nothing yet", "Models": self._models(server)}
        rows = "".join(f"<dt>{name}</dt><dd>{cards.text(value)}</dd>" for name, value in facts.items() if value)
        note = f'<span class="tag">{cards.STAND_IN}</span><p class="hush"><code>{cards.CONNECT}</code></p>' if server.simulated else ""
        return f'<section class="box"><h2>{cards.text(name)}</h2>{note}<dl>{rows}</dl></section>'

    def _models(self, server: ServerStatus) -> str:
        address = next(address for address in self._studio._servers.addresses if address.url == server.url)
        found = self._studio._servers.models(address)
        return ", ".join(f"{len(names)} {folder.replace('_', ' ')}" for folder, names in found.items() if names)

    def _missing(self, kind: str) -> str:
        files = self._studio.missing(kind)
        if not files:
            return ""
        rows = "".join(f"<li>{cards.text(file.advice)}</li>" for file in files)
        return f'<section class="box"><h2>Missing to make {KINDS[kind]}</h2><ul>{rows}</ul></section>'
