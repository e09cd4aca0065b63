"""`people`: who may use the page, what they may have, and their links.

Owns how people are named and listed on the command line. Holds no rule: limits are guests.py's, keys the ledger's.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, TypeAlias

import typer

from toolkit.cli.door import app
from toolkit.cli.options import AsJson
from toolkit.cli.printing import print_json, print_table, say
from toolkit.errors import RequestInvalid
from toolkit.guests import OWNER
from toolkit.ledger.people import DAY_S
from toolkit.settings import public_url
from toolkit.visitors import SIGN_IN_PATH

people = typer.Typer(no_args_is_help=True, help="Say who may use the page, and what they may have; a home without people is its owner's alone.")
app.add_typer(people, name="people")
Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="Whose.", show_default=False)]
Limit: TypeAlias = Annotated[int | None, typer.Option(min=0, show_default="as it is")]


@people.command()
def add(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Of a friend; somebody who is there gets another link.", show_default=False)] = None,
    owner: Annotated[bool, typer.Option("--owner", help="A link for yourself, who sees and may do everything.")] = False,
    days: Annotated[float, typer.Option(min=0.01, help="How long the link can be used.")] = 7.0,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Where the page is.", show_default="where it was last served for others")] = None,
    as_json: AsJson = False,
) -> None:
    """Let somebody in: prints a link that works once, to send to them."""
    if (name is None) != owner:
        raise RequestInvalid("Give a NAME, or --owner.", field="name")
    with context.obj.studio() as studio:
        known = studio._ledger.people
        was_here = known.find(name or OWNER) is None and studio._ledger.count(person=name) if name else 0
        person = known.add(name or OWNER, is_owner=owner)
        base = public_url(url or "") or known.public_url() or f"http://127.0.0.1:{context.obj.settings().port}"
        link = f"{base}{SIGN_IN_PATH}#{known.give(person.name, 'code', days * DAY_S)}"
    print_json({"name": person.name, "link": link, "days": days}) if as_json else typer.echo(link)
    say(f"It works once, within {days:g} days.")
    if was_here:
        say(f"note: somebody called {person.name} asked for {was_here} jobs here before; they see those.")


@people.command(name="list")
def list_people(context: typer.Context, as_json: AsJson = False) -> None:
    """Who may come in, what they may have and how much of it is used."""
    with context.obj.studio() as studio:
        known = studio._ledger.people
        rows = [(person, *known.used(person.name)) for person in known.all()]
    if as_json:
        for person, asked, open_jobs in rows:
            print_json({**asdict(person), "quota": person.quota.model_dump(), "jobs_within_hour": asked, "open_jobs": open_jobs})
        return
    shown = []
    for person, asked, open_jobs in rows:
        quota = person.quota
        said = (
            ["everything"] * 5 if person.is_owner else [f"{asked} of {quota.jobs_per_hour}", f"{open_jobs} of {quota.in_line}", f"{quota.pixels / 1e6:.0f} M"]
        )
        said += [] if person.is_owner else [f"{quota.gpu_s_per_hour} s", f"{quota.upload_mb_per_hour} MB"]
        shown.append([person.name, *said])
    print_table(["name", "jobs an hour", "in line", "pixels x steps x frames", "server an hour", "uploads an hour"], shown)


@people.command()
def remove(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Let somebody in no more: they are signed out at once, what waits of theirs is cancelled, their pictures stay."""
    with context.obj.studio() as studio:
        person = studio._ledger.people.remove(name)
        waiting = [job.id for job in studio._ledger.open_jobs() if job.person == person.name and not person.is_owner]
        for job_id in waiting:
            studio._ledger.ask_cancel(job_id)
    print_json({"name": person.name, "cancelled": len(waiting)}) if as_json else typer.echo(f"{person.name} is out; {len(waiting)} jobs are cancelled.")


@people.command()
def quota(
    context: typer.Context, name: Name, jobs_per_hour: Limit = None, in_line: Limit = None,
    pixels: Annotated[int | None, typer.Option(min=0, help="Pixels x steps x frames of one job.", show_default="as it is")] = None,
    gpu_s_per_hour: Annotated[int | None, typer.Option("--gpu-s-per-hour", min=0, help="Seconds of the server.", show_default="as it is")] = None,
    upload_mb_per_hour: Limit = None,
) -> None:  # fmt: skip
    """What a guest may have; prints it, changed or not."""
    given = {"jobs_per_hour": jobs_per_hour, "in_line": in_line, "pixels": pixels, "gpu_s_per_hour": gpu_s_per_hour, "upload_mb_per_hour": upload_mb_per_hour}
    with context.obj.studio() as studio:
        known = studio._ledger.people
        person = known.known(name)
        if person.is_owner:
            raise RequestInvalid("The owner has no quota.", field="name")
        now = person.quota.model_copy(update=_given(given))
        known.set_quota(person.name, now)
    print_json({"name": person.name, **now.model_dump()})


@people.command()
def rules(
    context: typer.Context,
    models: Annotated[str | None, typer.Option(metavar="A,B", help="Models that guests may use, by (part of) their names; '' for any.")] = None,
    negative: Annotated[str | None, typer.Option(help="What every picture and clip of a guest leaves out; '' for nothing.")] = None,
    in_line: Annotated[int | None, typer.Option(min=0, help="How many jobs all guests together may have in line.")] = None,
) -> None:
    """What holds for all guests; prints it, changed or not."""
    names = tuple(part.strip() for part in models.split(",") if part.strip()) if models is not None else None
    with context.obj.studio() as studio:
        known = studio._ledger.people
        now = known.rules().model_copy(update=_given({"models": names, "negative": negative, "in_line": in_line}))
        known.set_rules(now)
    print_json(now.model_dump())


@people.command()
def token(context: typer.Context, name: Name) -> None:
    """Print a new token for somebody's programs: `Authorization: Bearer ...`; it is shown this once, and works until they are removed."""
    with context.obj.studio() as studio:
        typer.echo(studio._ledger.people.give(studio._ledger.people.known(name).name, "token"))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
