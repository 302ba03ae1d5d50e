"""The tables of template inversion, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ironmask.attacks.inversion import Hits
from pipelines.inversion.inputs import Input
from pipelines.inversion.results import FARS, TOLD, InversionResults, Line
from pipelines.report.sheets import Sheet

# Kim et al. 2021, supplement A, Table 3: percent at each rate; it names no type.
_PUBLISHED: Final = {
    "NbNet, Facenet (published)": {1e-3: 95.20, 1e-2: 98.63},
    "NbNet, ArcFace (published)": {1e-6: 81.5, 1e-3: 97.74},
}
_UNSUPPORTED: Final = "*"
_SHEET_FARS: Final = tuple(sorted(FARS))


def inversion_sheets(found: InversionResults) -> list[Sheet]:
    """All tables of the report, in its order."""
    made = [_who(found), _beside_the_paper(found), _hits(found), _likeness(found), _limits(found)]
    return [*made, _failures(found)] if found.failures else made


def brief(found: InversionResults) -> list[Sheet]:
    """The table for a terminal."""
    rows = [
        [*_named(line), _share(line.at(TOLD)), f"{line.cosine:.3f}"]
        for line in found.lines
        if line.attacked
    ]
    columns = ["input", "inverter", "recogniser", "type", f"accepted at FAR {TOLD:.1%}", "cosine"]
    return [Sheet("Template inversion", _people(found), columns, rows)]


def _people(found: InversionResults) -> str:
    left = (
        f" {found.left_out:,} people were left out, for an inverter has learnt from them."
        if found.left_out
        else ""
    )
    return (
        f"{found.tested:,} people are tested, {found.second:,} of them with a second photo; "
        f"{found.strangers:,} others set the thresholds.{left}"
    )


def _who(found: InversionResults) -> Sheet:
    what = found.inversion
    rows = [
        ["faces", what.faces],
        ["attacked recogniser", f"{what.model} ({what.fingerprint[:12]})"],
        ["other recogniser", what.other_model or "none"],
        ["protected rows", f"of {what.rows.dest}" if what.rows else "made for this evaluation"],
        *([f"inverter {one.label}", _fit(one.fit.most, len(one.fit.people))]
          for one in what.inverters),
    ]  # fmt: skip
    return Sheet("What was compared", _people(found), ["what", "value"], rows)


def _fit(most: int, people: int) -> str:
    return f"learnt from photos of {people:,} people, {most:,} photos at most"


def _beside_the_paper(found: InversionResults) -> Sheet:
    note = (
        "Accepted reconstructions of stored embeddings, by the recogniser that they are of; with "
        "95 % intervals by people (Wilson). Type I: against the photo that the embedding is of; "
        "type II: against another photo. Published: Kim et al. 2021, supplement A, Table 3, which "
        f"names neither. {_star()}"
    )
    rows = [
        [name, "", *(f"{known[far]:g} %" if far in known else "NA" for far in _SHEET_FARS)]
        for name, known in _PUBLISHED.items()
    ]
    for which in (1, 2):
        rows += [
            [f"{line.inverter}, {line.model}", _type(which), *map(_share, _by_far(line))]
            for line in found.of(Input.STORED, which=which)
        ]
    columns = ["inverter and recogniser", "type", *(f"FAR {far:.4%}" for far in _SHEET_FARS)]
    return Sheet("Beside the published table", note, columns, rows)


def _hits(found: InversionResults) -> Sheet:
    note = (
        "Every input and inverter, by each recogniser: accepted of all. Reconstructions are "
        "rounded to 8 bits and compared with real photos. A row that lies there encrypted gives "
        f"no vector to invert. {_star()}"
    )
    rows = [
        [*_named(line), *(_counts(hits) for hits in _by_far(line)), f"{line.cosine:.3f}"]
        for line in found.lines
    ]
    columns = ["input", "inverter", "recogniser", "type"]
    columns += [f"FAR {far:g}" for far in _SHEET_FARS]
    return Sheet("Accepted reconstructions", note, [*columns, "mean cosine"], rows)


def _likeness(found: InversionResults) -> Sheet:
    note = (
        "How alike what is inverted is to the person's own embedding. The search is that of an "
        "audit; it has the row's helper, and the digests to confirm what it finds."
    )
    rows = [
        [str(one.input), f"{one.found:,} of {one.asked:,}", f"{one.cosine:.3f}"]
        for one in found.likeness
    ]
    return Sheet("What is inverted", note, ["input", "people", "mean cosine"], rows)


def _limits(found: InversionResults) -> Sheet:
    note = (
        "By a photo of each stranger. A rate is supported where enough pairs of people were "
        "compared for thirty accepted ones."
    )
    rows = [
        [name, f"{one.far:g}", f"{one.cosine:.4f}", f"{one.accepted:,} of {one.comparisons:,}",
         "yes" if one.supported else "no"]
        for name, own in found.thresholds.items()
        for one in own
    ]  # fmt: skip
    columns = ["recogniser", "FAR", "cosine", "strangers accepted", "supported"]
    return Sheet("Thresholds", note, columns, rows)


def _failures(found: InversionResults) -> Sheet:
    counts: dict[str, int] = {}
    for _, reason, _ in found.failures:
        counts[reason] = counts.get(reason, 0) + 1
    rows = [[reason, f"{count:,}"] for reason, count in counts.items()]
    return Sheet("Photos that could not be used", "", ["reason", "photos"], rows)


def _star() -> str:
    return f"{_UNSUPPORTED}: too few strangers support the threshold."


def _type(which: int) -> str:
    return "I" * which


def _named(line: Line) -> list[str]:
    return [str(line.input), line.inverter or "as it is", line.model, _type(line.type)]


def _by_far(line: Line) -> Iterator[Hits]:
    """The hits at the rates of a sheet, the smallest first."""
    return (line.at(far) for far in _SHEET_FARS)


def _mark(hits: Hits) -> str:
    return "" if hits.threshold.supported else f" {_UNSUPPORTED}"


def _share(hits: Hits) -> str:
    low, high = (100 * end for end in (hits.interval.low, hits.interval.high))
    return f"{100 * hits.share:.1f} % ({low:.1f} to {high:.1f}){_mark(hits)}"


def _counts(hits: Hits) -> str:
    return f"{hits.hits:,} of {hits.trials:,}{_mark(hits)}"
