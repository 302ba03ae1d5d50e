"""Results of runs, reports and look-ups on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from infra.models.installed import label_of
from pipelines.operations.inventory import Inventory
from pipelines.report.sheets import Sheet
from pipelines.run.begin import Forecast
from pipelines.run.summary import Summary
from pipelines.verification.answers import Answered
from pipelines.verification.probe import Verdict


def facts(summary: Summary) -> list[tuple[str, str]]:
    """A run's summary as (what, value) pairs."""
    rate = summary.inputs / summary.seconds if summary.seconds else 0.0
    rows = [
        ("settings", summary.settings),
        ("inputs", f"{summary.inputs:,}"),
        ("used", f"{summary.used:,}"),
        ("failed", f"{summary.failed:,}"),
        ("duplicate", f"{summary.duplicate:,}"),
        ("skipped", f"{summary.skipped:,}"),
        *((f"  {reason}", f"{count:,}") for reason, count in summary.reasons.items()),
        *disagreement(summary.disagreement),
        ("subjects enrolled", f"{summary.subjects_enrolled:,}"),
        ("subjects not enrolled", f"{summary.subjects_not_enrolled:,}"),
        ("written", size(summary.bytes_written)),
        ("time", f"{summary.seconds:,.1f} s ({rate:,.1f} inputs/s)"),
        ("run", summary.run_id),
    ]
    if summary.resumed_shards:
        rows.append(("shards done before", f"{summary.resumed_shards:,}"))
    if summary.orphans_destroyed:
        rows.append(("orphans destroyed", f"{summary.orphans_destroyed:,}"))
    return rows + excluded(summary)


def excluded(summary: Summary) -> list[tuple[str, str]]:
    """Nodes that got no work, as (what, why) pairs."""
    return [(f"excluded: {node}", why) for node, why in summary.excluded_nodes.items()]


def disagreement(people: dict[str, int]) -> list[tuple[str, str]]:
    """Subjects with faces of several people, as (what, value) pairs."""
    return [(f"subjects with {reason}", f"{count:,}") for reason, count in people.items()]


def print_summary(summary: Summary, console: Console) -> None:
    """Show what a run did."""
    console.print(pairs(f"Enrolment into {summary.dest}", facts(summary)))


def print_forecast(
    forecast: Forecast, console: Console, more: Iterable[tuple[str, str]] = ()
) -> None:
    """Show what a run would do. more: pairs of (what, value)."""
    rows = [
        ("settings", forecast.settings),
        ("inputs", f"{forecast.inputs:,} in {forecast.shards:,} shards"),
        ("to process", f"{forecast.todo:,}"),
        *((f"  {reason}", f"{count:,}") for reason, count in forecast.reasons.items()),
        ("subjects to enrol", f"{forecast.subjects:,}"),
        ("templates", f"{size(forecast.template_bytes)} at most"),
        *more,
    ]
    if forecast.resumes:
        rows.insert(1, ("continues run", f"{forecast.resumes}, whose committed shards are done"))
    console.print(pairs(f"Would enrol into {forecast.dest}", rows))


def print_packs(packs: Iterable[tuple[str, str, str, str, str]], console: Console) -> None:
    """Show model packs, each as (name, digits of its fingerprint, whether it is here or why not,
    licence, sources).
    """
    table = Table("pack", "fingerprint", "here", "licence", "sources")
    for pack in packs:
        table.add_row(*pack)
    console.print(table)


def print_verdicts(subject: str, verdicts: Iterable[Verdict], console: Console) -> None:
    """Show the answer for each probe."""
    table = Table(title=f"Probes against {subject}", title_justify="left")
    table.add_column("probe", overflow="fold")
    table.add_column("answer")
    for verdict in verdicts:
        table.add_row(verdict.probe, _answer(verdict))
    console.print(table)


def print_answered(done: Answered, console: Console) -> None:
    """Show how the probes of a manifest were answered."""
    rows = [
        ("accepted", f"{done.accepted:,}"),
        ("rejected", f"{done.rejected:,}"),
        ("no answer", f"{done.unanswered:,}"),
        *((f"  {reason}", f"{count:,}") for reason, count in sorted(done.reasons.items())),
        ("answers", done.out),
    ]
    console.print(pairs(f"{done.probes:,} probes", rows))


def _answer(verdict: Verdict) -> str:
    if verdict.accepted is None:
        return f"no answer: {verdict.reason} ({verdict.detail})"
    return "accepted" if verdict.accepted else "rejected"


def print_inventory(found: Inventory, console: Console) -> None:
    """Show the contents of a destination."""
    rows = [("table", found.table_id), ("logs", found.seal)]
    for g in found.generations:
        seal = "encrypted" if g.sealed else "PLAINTEXT (research mode)"
        rows += [
            (f"generation {g.generation}", f"{g.state}, {g.templates:,} templates"),
            ("  settings", g.settings),
            *scheme(g.scheme_version, g.code_width, g.structure, indent="  "),
            ("  helpers", f"{seal}, {size(g.row_bytes)} a row with digests"),
            ("  model", label_of(g.model)),
            ("  key", g.key_id),
        ]
    rows += [(f"generation {n}", f"destroyed {when}") for n, when in found.destroyed.items()]
    if found.lost:
        rows.append(("people lost", f"{found.lost:,} with a data file: `ironmask repair`"))
    if found.two_issues:
        rows.append(("two issues", f"{found.two_issues:,} people, enrolled again since a loss"))
    rows += [(f"{name} on store", size(held)) for name, held in found.data_bytes.items()]
    rows += [(f"inputs {name}", f"{count:,}") for name, count in found.outcomes.items()]
    rows += [(f"  {name}", f"{count:,}") for name, count in found.reasons.items()]
    rows += disagreement(found.disagreement)
    rows += [(f"run {run['run_id']}", f"{run['kind']}, {run['state']}") for run in found.runs]
    console.print(pairs(found.dest, rows))


def scheme(
    version: int | None, code_width: int | None, structure: str | None, *, indent: str = ""
) -> list[tuple[str, str]]:
    """How templates are made, as (what, value) pairs; none where it is not known."""
    if version is None:
        return []
    return [(f"{indent}scheme", f"version {version}, code {code_width} wide, {structure}")]


def pairs(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """A table of (what, value) under a title."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value", overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def size(count: int) -> str:
    """A number of bytes in a readable unit."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} bytes" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def print_sheets(made: Iterable[Sheet], console: Console) -> None:
    """Show the tables of a report."""
    for sheet in made:
        table = Table(title=sheet.title, title_justify="left", caption=sheet.note or None)
        table.caption_justify = "left"
        for name in sheet.columns:
            table.add_column(name, overflow="fold")
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
