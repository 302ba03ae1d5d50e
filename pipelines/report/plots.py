"""The plots of reports, as SVG text."""

from __future__ import annotations

import io
import logging
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import ndtri

from pipelines.auditing.results import AuditResults
from pipelines.evaluation.results import CaseResults, Results
from pipelines.inversion.inputs import Input
from pipelines.inversion.results import InversionResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Plot = tuple[str, str, str]
"""Title, caption and SVG. If a plot cannot be drawn, the SVG is empty; the caption says why."""

_log = logging.getLogger("ironmask.report")
_WHY: Final = 200
_SIZE: Final = (6.6, 4.2)
_TICKS: Final = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5)
# These colours also differ in grey.
_COLOURS: Final = ("#1b4f8f", "#c1432b", "#2f8f5b", "#8a5aa8", "#b08a1e", "#444444")
_MARKS: Final = "osD^vP"


def _styled() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    style: dict[Any, Any] = {
        "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "grid.alpha": 0.3, "legend.frameon": False,
    }  # fmt: skip
    return mpl.rc_context(style)


def plots(found: Results) -> list[Plot]:
    """The plots of an evaluation: of the first case, and one over all of them."""
    first = found.cases[0]
    of = f" (templates: {first.case.name})" if len(found.cases) > 1 else ""
    made = [
        _plot(
            f"TAR against FMR{of}",
            "The line is the recogniser without protection. Each point is a setting, labelled with "
            "its code width, alpha and tolerance: compare it with the line above it, at the same "
            "FMR. An FMR without an error stands at its 95 % bound, as a hollow point.",
            _tradeoff,
            first,
        ),
        _plot(
            f"TAR against bits{of}",
            "Each line is one code width and alpha; along it the tolerance grows from right to "
            "left. A point further up and right is better: it accepts more genuine faces for the "
            "same work of guessing.",
            _frontier,
            first,
        ),
        _plot(
            f"Detection error trade-off{of}",
            "The line is the recogniser without protection, the points are protected settings; "
            "a rate without an error stands at its 95 % bound. Both axes are normal deviates.",
            _det,
            first,
        ),
        _plot(
            f"Angles{of}",
            "Angle between two embeddings of one person and of different people, in degrees.",
            _angles,
            first,
        ),
        _plot(
            f"Agreement of supports{of}",
            "Places in which the decoded codeword agrees with the enrolled one: genuine "
            "comparisons, and impostors of a sample of templates.",
            _agreement,
            first,
        ),
    ]
    if len(found.cases) > 1:
        caption = (
            "TAR of each kind of template: the recogniser at an FMR of 1e-6, and each setting "
            "at its largest tolerance. Bars are 95 % intervals."
        )
        made.insert(0, _plot("TAR by templates", caption, _cases, found.cases))
    return made


def audit_plots(found: AuditResults) -> list[Plot]:
    """The plots of an audit."""
    return [
        _plot(
            "Spectrum of the embeddings",
            "Share of the energy outside of the strongest directions. Where it falls to "
            "nothing the space is empty, and a stolen helper says which codewords point there.",
            _beyond,
            found,
        )
    ]


def inversion_plots(found: InversionResults) -> list[Plot]:
    """The plots of template inversion."""
    caption = (
        "Share of reconstructions that {} accepts, against another photo of the person where there "
        "is one (dashed), and against the one that the template is of. Of stored embeddings; in "
        "grey of readable helpers without a search."
    )
    return [
        _plot(f"Accepted by {name}", caption.format(name), _accepted, (found, name))
        for name in found.inversion.models
    ]


def _accepted(axes: Axes, of: tuple[InversionResults, str]) -> None:
    found, name = of
    labels = [one.label for one in found.inversion.inverters]
    some = (Input.STORED, Input.HELPER)
    for line in (line for line in found.lines if line.model == name and line.input in some):
        points = sorted((hits.threshold.far, hits.share) for hits in line.curve)
        is_stored = line.input is Input.STORED
        colour = _COLOURS[labels.index(line.inverter) % (len(_COLOURS) - 1)]
        axes.plot(
            *zip(*points, strict=True), "-" if line.type == 1 else "--", linewidth=1.3,
            color=colour if is_stored else _COLOURS[-1], alpha=1.0 if is_stored else 0.4,
            label=line.inverter if is_stored and line.type == 1 else "",
        )  # fmt: skip
    axes.set(xlabel="false accept rate", ylabel="accepted", xscale="log", ylim=(-0.02, 1.02))
    # Below it lies the grey of helpers.
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.15))


def _plot(title: str, caption: str, draw: Any, found: Any) -> Plot:
    """One plot. If its library refuses to draw it, only this plot is lost."""
    try:
        with _styled():
            return title, caption, _svg(draw, found)
    except Exception as error:  # noqa: BLE001
        _log.warning("a plot could not be drawn (%s): %s", type(error).__name__, title)
        why = str(error).partition("\n")[0][:_WHY]
        return title, f"Not drawn. {type(error).__name__}: {why}", ""


def _beyond(axes: Axes, found: AuditResults) -> None:
    rest = np.maximum(found.space.beyond, 1e-6)
    axes.plot(range(len(rest)), rest, color=_COLOURS[0], linewidth=1.4, label="embeddings")
    even = 1 - np.arange(len(rest)) / (len(rest) - 1)
    axes.plot(
        range(len(rest)), np.maximum(even, 1e-6), ":", color=_COLOURS[1], linewidth=1.2,
        label="vectors that fill the space",
    )  # fmt: skip
    axes.set(
        xlabel="strongest directions", ylabel="energy outside of them", yscale="log",
        ylim=(1e-6, 1.5), xlim=(0, len(rest) - 1),
    )  # fmt: skip
    axes.legend(loc="lower left")


def _svg(draw: Any, found: Any) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    draw(figure.add_subplot(), found)
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    # The SVG lies inside a page: it has no prolog, and its ids are unique there.
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    mark = draw.__name__.strip("_")
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{mark}-", text)


def _series(found: CaseResults) -> dict[str, list[Any]]:
    by_setting: dict[str, list[Any]] = {}
    for row in found.protected:
        by_setting.setdefault(row.setting, []).append(row)
    return by_setting


def _tradeoff(axes: Axes, found: CaseResults) -> None:
    fmr, tar = found.scores.fmr, 1 - found.scores.fnmr
    some = fmr > 0
    axes.plot(fmr[some], tar[some], color="#000000", linewidth=1.2, label="recogniser (cosine)")
    labels = []
    for place, (name, rows) in enumerate(_series(found).items()):
        colour = _COLOURS[place % len(_COLOURS)]
        for number, row in enumerate(rows):
            params, seen = row.params, bool(row.fmr.errors)
            at = (row.fmr.value if seen else row.fmr.bound, 1 - row.fnmr.value)
            axes.plot(
                *at, linestyle="", marker=_MARKS[place % len(_MARKS)], markersize=4, color=colour,
                markerfacecolor=colour if seen else "none", label="" if number else name,
            )  # fmt: skip
            labels.append((at, f"{params.code_width}, {params.alpha}, {params.tolerance}", colour))
    for place, (at, label, colour) in enumerate(sorted(labels)):
        # Neighbours lie at much the same height, so their labels take turns in depth.
        axes.annotate(
            label, at, xytext=(4, -8 - 8 * (place % 3)), textcoords="offset points", fontsize=6,
            color=colour,
        )  # fmt: skip
    worst = min(1 - row.fnmr.value for row in found.protected)
    # Of few comparisons a bound may lie far to the right: no point is left out.
    right = max([1e-2, *(2 * at[0] for at, _, _ in labels)])
    axes.set(
        xlabel="false match rate", ylabel="true accept rate", xscale="log", xlim=(None, right),
        ylim=(max(0.0, worst - 0.05), 1.01),
    )  # fmt: skip
    axes.legend(loc="lower right", fontsize=7)


def _frontier(axes: Axes, found: CaseResults) -> None:
    for place, (name, rows) in enumerate(_series(found).items()):
        bits = [row.params.bits for row in rows]
        tar = [1 - row.fnmr.value for row in rows]
        low = [row.fnmr.interval.high - row.fnmr.value for row in rows]
        high = [row.fnmr.value - row.fnmr.interval.low for row in rows]
        axes.errorbar(
            bits, tar, yerr=[low, high], label=name, color=_COLOURS[place % len(_COLOURS)],
            marker=_MARKS[place % len(_MARKS)], markersize=4, linewidth=1.2, capsize=2,
        )  # fmt: skip
        for row, x, y in zip(rows, bits, tar, strict=True):
            axes.annotate(
                str(row.params.tolerance), (x, y), textcoords="offset points", xytext=(4, 4),
                fontsize=7,
            )  # fmt: skip
    worst = min(1 - row.fnmr.interval.high for row in found.protected)
    axes.set(xlabel="bits against guessing", ylabel="TAR", ylim=(max(0.0, worst - 0.05), 1.01))
    axes.legend(loc="lower left")


def _cases(axes: Axes, cases: list[CaseResults]) -> None:
    rows = {"recogniser, FMR 1e-6": [case.cosine[-1].fnmr for case in cases]}
    for name, some in _series(cases[0]).items():
        tolerance = some[-1].params.tolerance
        rows[f"{name}, tolerance {tolerance}"] = [_series(c)[name][-1].fnmr for c in cases]
    colours = ["#000000", *_COLOURS]
    for place, (label, rates) in enumerate(rows.items()):
        tar = np.array([1 - rate.value for rate in rates])
        bars = [
            [rate.interval.high - rate.value for rate in rates],
            [rate.value - rate.interval.low for rate in rates],
        ]
        axes.errorbar(
            np.arange(len(cases)) + 0.06 * place, tar, yerr=bars, label=label, linestyle="",
            color=colours[place % len(colours)], marker=_MARKS[(place - 1) % len(_MARKS)],
            markersize=4, linewidth=1, capsize=2,
        )  # fmt: skip
    axes.set_xticks(range(len(cases)), [case.case.name for case in cases], rotation=60, fontsize=7)
    axes.set(ylabel="TAR")
    axes.legend(loc="lower right", fontsize=7)


def _det(axes: Axes, found: CaseResults) -> None:
    scores = found.scores
    some = (scores.fmr > 0) & (scores.fnmr > 0) & (scores.fmr < 0.6) & (scores.fnmr < 0.9)
    axes.plot(
        ndtri(scores.fmr[some]), ndtri(scores.fnmr[some]), color="#000000", linewidth=1.2,
        label="recogniser (cosine)",
    )  # fmt: skip
    for place, (name, rows) in enumerate(_series(found).items()):
        fmr = [row.fmr.value if row.fmr.errors else row.fmr.bound for row in rows]
        fnmr = [min(row.fnmr.value if row.fnmr.errors else row.fnmr.bound, 0.9) for row in rows]
        axes.plot(
            ndtri(fmr), ndtri(fnmr), linestyle="", marker=_MARKS[place % len(_MARKS)],
            color=_COLOURS[place % len(_COLOURS)], markersize=4, label=name,
        )  # fmt: skip
    ticks = ndtri(_TICKS)
    names = [f"{tick:g}" for tick in _TICKS]
    axes.set_xticks(ticks, names)
    axes.set_yticks(ndtri([*_TICKS[2:], 0.8]), [*names[2:], "0.8"])
    axes.set(
        xlabel="false match rate", ylabel="false non-match rate", xlim=ndtri([1e-9, 0.5]),
        ylim=ndtri([5e-4, 0.9]),
    )  # fmt: skip
    axes.legend(loc="upper right")


def _angles(axes: Axes, found: CaseResults) -> None:
    scores = found.scores
    edges = np.linspace(0, 180, 181)
    angle = np.degrees(np.arccos(np.clip(scores.thresholds, -1, 1)))
    for name, numbers, colour in (
        ("genuine", scores.genuine, _COLOURS[0]),
        ("impostor", scores.impostor, _COLOURS[1]),
    ):
        density, _ = np.histogram(angle, edges, weights=numbers / numbers.sum())
        axes.stairs(density, edges, label=name, color=colour, fill=True, alpha=0.45)
    axes.set(xlabel="angle in degrees", ylabel="share a degree", xlim=(0, 130))
    axes.legend()


def _agreement(axes: Axes, found: CaseResults) -> None:
    for place, (name, (genuine, impostor)) in enumerate(found.agreements.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        for numbers, style, side in ((genuine, "-", "genuine"), (impostor, ":", "impostor")):
            share = np.array(numbers) / max(sum(numbers), 1)
            width = int(np.flatnonzero(genuine)[-1]) + 1 if any(genuine) else len(share)
            axes.plot(
                range(width), np.where(share > 0, share, np.nan)[:width], style, color=colour,
                marker=_MARKS[place % len(_MARKS)], markersize=3, linewidth=1,
                label=f"{name}, {side}",
            )  # fmt: skip
    axes.set(xlabel="places that agree", ylabel="share of comparisons", yscale="log")
    axes.set_ylim(top=30)
    axes.legend(fontsize=7, ncols=2, loc="upper center")
