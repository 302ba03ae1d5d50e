"""Results of operations on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from rich.console import Console
from rich.table import Table

from pipelines.operations.check import Report
from pipelines.operations.status import Status
from pipelines.repairing.job import Outlook, Repaired
from pipelines.report.terminal import disagreement, excluded, facts, pairs, scheme, size
from pipelines.reprotection.job import Renewed
from pipelines.spec.texts import visible
from pipelines.table.evidence import Evidence

_SHOWN: Final = 50


def print_status(found: Status, console: Console) -> None:
    """Show how far a run has come."""
    console.print(status_table(found))


def status_line(found: Status) -> str:
    """How far a run has come, in one line."""
    parts = [
        f"{found.run_id} {found.state}",
        f"{found.inputs_done:,} of {found.inputs:,} inputs committed",
        f"{found.inputs_waiting:,} wait",
        f"{sum(found.failed.values()):,} failed",
        f"{found.in_flight:,} shards in flight",
    ]
    if found.resubmitted:
        parts.append(f"{found.resubmitted:,} shards handed out again")
    if found.nodes_excluded:
        parts.append(f"{found.nodes_excluded:,} nodes excluded")
    return ", ".join([*parts, f"ends: {_end(found)}"])


def status_table(found: Status) -> Table:
    """How far a run has come, as a table."""
    share = found.inputs_done / found.inputs if found.inputs else 1.0
    rows = [
        ("run", f"{found.run_id}, {found.state}"),
        *scheme(found.scheme_version, found.code_width, found.structure),
        ("worked on by", found.holder or "nobody"),
        ("inputs committed", f"{found.inputs_done:,} of {found.inputs:,} ({share:.1%})"),
        ("finished as well", f"{found.inputs_waiting:,} inputs that wait for their commit"),
        *((f"  {name}", f"{count:,}") for name, count in found.outcomes.items()),
        *((f"    {reason}", f"{count:,}") for reason, count in found.failed.items()),
        ("inputs left", f"{found.inputs_left:,}"),
        ("shards committed", f"{found.shards_done:,} of {found.shards:,}"),
        ("shards in flight", f"{found.in_flight:,}, and {found.waiting:,} wait for their commit"),
        *_troubles(found),
        ("ends", _end(found)),
        ("logs", found.seal),
    ]
    return pairs(found.dest, rows)


def _troubles(found: Status) -> list[tuple[str, str]]:
    """What went wrong and was made good by others, as (what, value) pairs."""
    rows = []
    if found.in_flight:
        rows.append(("  the oldest", f"handed out {found.oldest_seconds:,.0f} s ago"))
    if found.resubmitted:
        rows.append(("shards lost", f"{found.resubmitted:,} times, and handed out again"))
    if found.nodes_excluded:
        rows.append(("nodes excluded", f"{found.nodes_excluded:,}; the log of the run names them"))
    return rows


def _end(found: Status) -> str:
    if found.state != "running":
        return "it has ended"
    if found.ends_at is None or found.per_second is None:
        return "not known yet" if found.holder else "run the same command again to continue it"
    left = timedelta(seconds=round((found.ends_at - datetime.now(UTC)).total_seconds()))
    return f"in {max(left, timedelta())} at {found.per_second:,.1f} inputs/s"


def print_renewed(done: Renewed, console: Console) -> None:
    """Show what a re-protection did."""
    summary, proof = done.summary, done.proof
    rows = [
        ("run", summary.run_id),
        ("settings", summary.settings),
        ("live now", f"generation {done.generation}, {summary.subjects_enrolled:,} templates"),
        ("inputs", f"{summary.inputs:,}: {summary.used:,} used, {summary.failed:,} failed"),
        *((f"  {reason}", f"{count:,}") for reason, count in summary.reasons.items()),
        *excluded(summary),
        *disagreement(summary.disagreement),
        ("without template", f"{done.lost:,} people"),
        ("missing", f"{done.missing:,} inputs that the old templates were made from"),
        (
            "destroyed",
            f"generation {proof.generation}: keys {proof.key_id}, {proof.files:,} files, "
            f"{size(proof.bytes)}, in every version",
        ),
        ("time", f"{summary.seconds:,.1f} s"),
        ("proof", f"ironmask prove {summary.dest} --generation {proof.generation}"),
    ]
    console.print(pairs(summary.dest, rows))


def print_repaired(done: Repaired, console: Console) -> None:
    """Show what a repair did."""
    rows = [
        ("lost files", f"{done.files:,}, destroyed in every version"),
        ("people lost", f"{done.lost:,}"),
        ("enrolled again", f"{done.enrolled:,}, who have two issues until the next re-protection"),
        ("without template", f"{done.without:,}"),
    ]
    if done.embeddings:
        rows.append(("vault", f"{done.embeddings:,} embeddings were in lost files, and are gone"))
    console.print(pairs(done.dest, rows + (facts(done.summary) if done.summary else [])))


def print_outlook(found: Outlook, console: Console) -> None:
    """Show what a repair would do."""
    rows = [
        ("settings", found.settings),
        ("lost files", f"{len(found.files):,} of templates"),
        *(("  file", path) for path in found.files[:_SHOWN]),
        ("people lost", f"{found.lost:,}, of whom the source has {found.listed:,}"),
        ("vault", f"{found.embeddings:,} embeddings in lost files"),
    ]
    console.print(pairs(f"Would repair {found.dest}", rows))


def print_evidence(found: Evidence, console: Console) -> None:
    """Show what speaks for and against a destruction."""
    rows = list(found.record.items())
    rows += [("holds", text) for text in found.statements]
    rows += [("FAILS", text) for text in found.failures]
    console.print(pairs(f"{found.dest}, {found.what}", rows))


def print_report(report: Report, console: Console) -> None:
    """Show what a check saw."""
    opened = f"{report.helpers_opened:,} helpers opened" if report.deep else "helpers not opened"
    rows = [
        ("table", report.table_id),
        ("files", f"{report.files:,} read, {size(report.size)}"),
        ("inputs", f"{report.inputs:,}"),
        ("templates", f"{report.templates:,}, {opened}"),
        ("time", f"{report.seconds:,.1f} s"),
        ("verdict", "sound" if report.sound else f"{len(report.findings):,} findings"),
    ]
    console.print(pairs(report.dest, rows))
    for title, lines in (("finding", report.findings), ("note", report.notes)):
        for line in lines[:_SHOWN]:
            console.print(visible(f"{title}: {line}"), soft_wrap=True, highlight=False)
        if len(lines) > _SHOWN:
            console.print(f"and {len(lines) - _SHOWN:,} more; --json prints all of them")
