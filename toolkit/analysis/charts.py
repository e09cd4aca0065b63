"""The charts of the questions: which columns make which picture, and five ways to draw one.

Owns colours, axes and units; the only importer of matplotlib, which is loaded with the first plot. Figures are made without pyplot: they belong
to whoever holds them, and no setting of the user's is touched. The colours are of a middle lightness and the ground is transparent, so that one
picture can be read on a light and on a dark page.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple, TypeAlias

from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from PIL import Image

Record: TypeAlias = Mapping[str, Any]
INK = {"light": "#2c2636", "dark": "#e6e2ea", None: "#827990"}  # the last stands out 4:1 from white and from black
COLOURS = ("#bf5582", "#4a90c2", "#d19036", "#52a17c", "#8d70c9", "#a3973c", "#3fa3a8", "#c0645a", "#b06fb0")
GREY = "#7f8c9b"
WIDTH, DPI = 8.0, 144
EDGE = "#1d1825"
BAR = 0.72  # of the room of a bar
TITLE_CHARACTERS, MODEL_CHARACTERS = 84, 26
FAR_APART = 4.0
MOST_BARS = 30  # of labels; more could not be read
ORDER = ("wait", "load", "encode", "sample", "decode", "save", "fetch", "cold", "warm", "cached", "before", "after", "kept", "others", "unknown")
ANY = "console"  # the name of rows that no question of ours asked for
MOMENTS = ("accepted", "started", "p10", "p25", "p50", "p75")
SHORTEST = 0.004  # of the time shown: a shorter bar could not be seen


class Chart(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        drawn, small = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=DPI)
        with Image.open(drawn) as picture:  # a chart has few colours: a third of the bytes in a saved notebook
            picture.quantize(256, Image.Quantize.FASTOCTREE).save(small, "png", optimize=True)
        width, height = self.get_size_inches()
        return small.getvalue(), {"width": round(width * DPI / 1.5), "height": round(height * DPI / 1.5)}


def draw(name: str, title: str, records: Sequence[Record], style: str | None = None, note: str | None = None) -> Chart:
    """The chart of a question's rows; words where there is nothing to draw.

    Args:
        name: the question's.
        title: its sentence.
        records: its rows.
        style: "light", "dark" or None: ink for either.
        note: why there may be no rows.
    """
    figure = Chart(figsize=(WIDTH, 3.0), layout="constrained", facecolor="none")
    figure.suptitle(textwrap.fill(_text(title), TITLE_CHARACTERS), fontsize=12, color=INK[style], x=0.01, ha="left")
    chart = CHARTS.get(name) or (of_any(records) if name == ANY else None)
    if chart is None or not records:
        _say(figure, "This one is a list: the table says it all." if records else f"No rows to draw. {note or ''}", INK[style])
        return figure
    chart(figure, records)
    for axes in figure.axes:
        _finish(axes, INK[style])
    return figure


def is_drawn(name: str, records: Sequence[Record]) -> bool:
    """Whether there is more to draw than words."""
    return bool(records) and (name in CHARTS or (name == ANY and of_any(records) is not None))


def of_any(records: Sequence[Record]) -> Callable[[Figure, Sequence[Record]], None] | None:
    """Bars for rows of any query: its last column of numbers, named by its columns of text; None where it has not both."""
    kinds = {name: {type(record[name]) for record in records} - {type(None)} for name in (records[0] if records else ())}
    numbers = [name for name, found in kinds.items() if found and found <= {int, float}]
    labels = [name for name, found in kinds.items() if found == {str}]
    return bars(*labels[:3], value=Value(numbers[-1], numbers[-1])) if numbers and labels else None


def _say(figure: Figure, text: str, ink: str) -> None:
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text.strip(), ha="center", va="center", color=ink, wrap=True)


def _finish(axes: Axes, ink: str) -> None:
    """Ink, and no more lines than needed."""
    axes.set_facecolor("none")
    axes.tick_params(colors=ink, which="both", labelsize=9, length=0)
    for place in ("top", "right", "left", "bottom"):
        axes.spines[place].set_visible(False)
    axes.grid(axis="x" if axes.get_label() == "across" else "both", color=ink, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title, *axes.texts):
        text.set_color(ink)
    legend = axes.get_legend()
    for text in legend.get_texts() if legend else ():
        text.set_color(ink)
    if legend:
        legend.get_title().set_color(ink)


# ---- five ways to draw --------------------------------------------------------------------------------------------------


class Value(NamedTuple):
    """What is measured: a column, its words with the unit, and a factor (100 for per cent)."""

    column: str
    axis: str
    factor: float = 1.0

    def of(self, record: Record) -> float:
        """The value as it is drawn; unknown counts as nothing."""
        value = float(record[self.column] or 0.0) * self.factor
        return value if math.isfinite(value) else 0.0

    def said(self, record: Record) -> str:
        """The value in words."""
        return "unknown" if record[self.column] is None else _number(self.of(record))


def bars(*labels: str, value: Value, reference: tuple[float, str] | None = None) -> Callable[[Figure, Sequence[Record]], None]:
    """One bar a row, the first on top, its number at its end; it begins at the reference, if there is one."""

    def drawn(figure: Figure, records: Sequence[Record]) -> None:
        drawable = records[:MOST_BARS]
        axes = _across(figure, [_label(record, labels) for record in drawable])
        start = reference[0] if reference is not None else 0.0
        found = axes.barh(range(len(drawable)), [value.of(record) - start for record in drawable], BAR, left=start, color=COLOURS[0])
        axes.bar_label(found, [value.said(record) for record in drawable], padding=3, fontsize=9)
        if reference is not None:
            values = [value.of(record) for record in drawable]
            if max(values) > FAR_APART * min(values) > 0:  # four times as fast is as far from the reference as four times as slow
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.axvline(reference[0], color=COLOURS[1], linewidth=1.2, linestyle="--", label=reference[1])
            _legend(axes)
        axes.set_xlabel(_axis(value, len(records), "rows"))
        axes.margins(x=0.12 if reference is None else 0.2)  # numbers may stand on both sides

    return drawn


def grouped(*labels: str, by: str, value: Value, stacked: bool = False) -> Callable[[Figure, Sequence[Record]], None]:
    """One line of bars for each label, a colour for each value of `by`: beside or behind one another."""

    def drawn(figure: Figure, records: Sequence[Record]) -> None:
        found: defaultdict[tuple[str, str], float] = defaultdict(float)
        for record in records:
            found[_label(record, labels), _said(record[by])] += value.of(record)
        every = _distinct(name for name, _ in found)
        names, kinds = every[:MOST_BARS], sorted({kind for _, kind in found}, key=lambda kind: (ORDER.index(kind) if kind in ORDER else -1, kind))
        axes = _across(figure, names, 1 if stacked else max(1, len(kinds) // 2))
        reached = [0.0] * len(names)
        for number, kind in enumerate(kinds):
            lengths = [found[name, kind] for name in names]
            thick = BAR if stacked else BAR / len(kinds)
            at = [place + (0 if stacked else (number + 0.5) * thick - BAR / 2) for place in range(len(names))]
            axes.barh(at, lengths, thick, left=list(reached) if stacked else None, color=GREY if kind == "unknown" else _colour(number), label=kind)
            reached = [before + length for before, length in zip(reached, lengths, strict=True)]
        axes.set_xlabel(_axis(value, len(every), "groups"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=value.column == "n"))
        _legend(axes, by.removeprefix("failure_"))

    return drawn


def lines(x: Value, axis: str, **columns: str) -> Callable[[Figure, Sequence[Record]], None]:
    """A line for each column; dashed where its words say `95 %`."""

    def drawn(figure: Figure, records: Sequence[Record]) -> None:
        figure.set_size_inches(WIDTH, 4.0)
        axes = figure.add_subplot()
        for number, (column, words) in enumerate(columns.items()):
            found = [(x.of(record), record[column]) for record in records if record[column] is not None]
            dashed = "--" if "95 %" in words else "-"
            axes.plot([at for at, _ in found], [height for _, height in found], dashed, color=_colour(number // 2), marker=".", label=words)
        axes.set_xlabel(x.axis)
        axes.set_ylabel(axis)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes)

    return drawn


def _etas(figure: Figure, records: Sequence[Record]) -> None:
    """How far predictions are off, and how often their bounds hold, along a job."""
    figure.set_size_inches(WIDTH, 4.0)
    left, right = figure.subplots(1, 2)
    for axes, column, words in ((left, "median_abs_error", "median error, % of the true time"), (right, "coverage", "inside the bounds, % of predictions")):
        for number, kind in enumerate(_distinct((record["target"], record["basis"]) for record in records)):
            found = {record["moment"]: 100 * record[column] for record in records if (record["target"], record["basis"]) == kind}
            at = [moment for moment in MOMENTS if moment in found]
            axes.plot(
                [MOMENTS.index(moment) for moment in at],
                [found[moment] for moment in at],
                marker="o",
                color=_colour(number),
                label=f"of the {kind[0]}, from {kind[1]}",
            )
        axes.set_xticks(range(len(MOMENTS)), ["accepted", "\nstarted", "10 %", "25 %", "50 %", "75 %"])
        axes.set_xlabel("predicted when")
        axes.set_ylabel(words)
        axes.set_ylim(0, 105 if column == "coverage" else None)
    right.axhline(80, color=GREY, linewidth=1.2, linestyle="--", label="promised: 80 %")
    _legend(right)


def _probe(figure: Figure, records: Sequence[Record]) -> None:
    """Before beside after, for each recipe and server."""
    names = {"before": "before", "after": "after"}
    rows = [{**record, "graph_hash": (record["graph_hash"] or "")[:8], "when": word, "s": record[name]} for record in records for name, word in names.items()]
    grouped("model", "server_url", "graph_hash", by="when", value=Value("s", "median of a step, s"))(figure, rows)


def _explained(figure: Figure, records: Sequence[Record]) -> None:
    """Each stage of a job beside what is usual."""
    rows = [{"stage": record["stage"], "whose": word, "s": record[name]} for record in records for name, word in (("took_s", "this job"), ("usual_s", "usual"))]
    grouped("stage", by="whose", value=Value("s", "time, s"))(figure, rows)


def _kept(figure: Figure, records: Sequence[Record]) -> None:
    """Kept ones before the others, for each LoRA and strength."""
    found: dict[tuple[str, float], list[int]] = {}
    for record in records:
        sums = found.setdefault((record["lora"], record["strength"]), [0, 0])
        sums[0] += record["kept"]
        sums[1] += record["files"] - record["kept"]
    rows = [
        {"lora": name, "strength": strength, "verdict": word, "n": n}
        for (name, strength), sums in found.items()
        for word, n in zip(("kept", "others"), sums, strict=True)
    ]
    grouped("lora", "strength", by="verdict", value=Value("n", "files"), stacked=True)(figure, rows)


def _gantt(figure: Figure, records: Sequence[Record]) -> None:
    """A lane a server, a bar a job; cold ones are hatched."""
    servers = sorted({_said(record["server"]) for record in records})
    models = _distinct(_said(record["model"]) for record in records)
    axes = _across(figure, servers, 2)
    starts = [float(mdates.date2num(record["started_at"])) for record in records]  # type: ignore[no-untyped-call]
    shortest = SHORTEST * (max(starts) - min(starts))
    for record, start in zip(records, starts, strict=True):
        cold = record["warmth"] == "cold"
        length = max(timedelta(seconds=record["run_s"] or 0.0) / timedelta(days=1), shortest)
        colour, lane = _colour(models.index(_said(record["model"]))), servers.index(_said(record["server"]))
        axes.barh(lane, length, BAR, left=start, color=colour, edgecolor=EDGE if cold else colour, hatch="////" if cold else None, linewidth=0.4)
    axes.xaxis_date()
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(axes.xaxis.get_major_locator()))  # type: ignore[no-untyped-call]
    axes.set_xlabel("time, UTC")
    handles = [Patch(color=_colour(number), label=_text(model)) for number, model in enumerate(models)]
    _legend(axes, "model", [*handles, Patch(facecolor="none", edgecolor=GREY, hatch="////", label="cold start")])


# ---- the parts of a chart -----------------------------------------------------------------------------------------------


def _across(figure: Figure, names: Sequence[str], lines_each: int = 1) -> Axes:
    """Axes for bars that lie, a name beside each, as high as they need."""
    figure.set_size_inches(WIDTH, 1.5 + 0.3 * min(len(names) * lines_each, 60))
    axes = figure.add_subplot(label="across")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return axes


def _legend(axes: Axes, title: str | None = None, handles: Sequence[Patch] | None = None) -> None:
    """Beside the chart, where it hides nothing."""
    given = {"handles": handles} if handles is not None else {}
    axes.legend(frameon=False, fontsize=9, title=title, title_fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left", **given)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _distinct(found: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(found))


def _label(record: Record, columns: Sequence[str]) -> str:
    """What a bar is about: `noobai · 832×1216 · 28 steps`; what is unknown is left out."""
    words = [f"{record[name]}×{record['height']}" if name == "width" and "height" in record else _worded(name, record[name]) for name in columns]
    return _text(" · ".join(word for word in words if word))


def _worded(name: str, value: Any) -> str:
    match name, value:
        case (_, None) | ("frames", 1):
            return ""
        case (("steps" | "frames"), _):
            return f"{value} {name}"
        case "cfg", _:
            return f"cfg {value:g}"
        case "model", _:
            return value if len(value) <= MODEL_CHARACTERS else f"{value[: MODEL_CHARACTERS - 1]}…"
        case _, date():
            return f"{value:%Y-%m-%d}"
    return str(value).removeprefix("http://")


def _said(value: Any) -> str:
    return "unknown" if value is None else _text(str(value))


def _axis(value: Value, found: int, what: str) -> str:
    """The words of an axis; also that not everything is there."""
    return value.axis if found <= MOST_BARS else f"{value.axis} (the first {MOST_BARS} of {found} {what})"


def _text(text: str) -> str:
    """A text as it stands: a pair of dollars would be a formula."""
    return text.replace("$", r"\$")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# ---- which question looks how -------------------------------------------------------------------------------------------

CHARTS: Mapping[str, Callable[[Figure, Sequence[Record]], None]] = {
    "slow_recipes": bars("model", "sampler", "width", "steps", value=Value("p50_s", "median run of a job, s")),
    "boxes": grouped("model", "width", "frames", by="device", value=Value("s_per_step", "median of a step, s")),
    "cold_warm": grouped("model", by="warmth", value=Value("run_s", "median run of a job, s")),
    "reloads": bars("server_url", "day", value=Value("lost_s", "loading after a switch of models, s a day")),
    "queue_wait": lines(
        Value("hour", "hour of the day, UTC"), "wait, s", home_p50_s="in our line, median", home_p95_s="in our line, 95 %",
        server_p50_s="on the server, median", server_p95_s="on the server, 95 %",
    ),
    "stages": grouped("kind", by="stage", value=Value("median_s", "median of a job, s"), stacked=True),
    "slowest_nodes": bars("class", value=Value("total_s", "all runs together, s")),
    "upgrade": bars("server_url", "version", "model", "width", value=Value("ratio", "step after / step before"), reference=(1.0, "as before")),
    "probe": _probe,
    "clip_second": bars("model", "width", value=Value("gpu_s_per_clip_s", "GPU time for a second of clip, s")),
    "cost_per_keeper": bars("model", "preset", value=Value("cost_per_keeper", "money for a picture that is kept, in the owner's currency")),
    "eta_quality": _etas,
    "failures": grouped("week", by="failure_kind", value=Value("n", "attempts that failed"), stacked=True),
    "busy": grouped("day", by="name", value=Value("busy_share", "busy, % of the day", 100.0)),
    "people": bars("who", value=Value("gpu_min", "GPU time this week, min")),
    "lora": _kept,
    "winners": bars("cfg", "sampler", value=Value("kept_share", "kept, % of those judged", 100.0)),
    "timeline": _gantt,
    "explain": _explained,
}  # fmt: skip
