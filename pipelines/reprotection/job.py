"""Re-protection: prepare a new generation, switch to it, destroy the old one, report.

Every step can be taken again, so that the same command goes on wherever it was broken off: before
the switch the old generation is live and whole, after it the new one is.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from ironmask.errors import TableError
from pipelines.plan import plans
from pipelines.plan.plans import Plan
from pipelines.ports import Keyring
from pipelines.reprotection import losses
from pipelines.run import begin as run_begin
from pipelines.run import steps
from pipelines.run.steps import Executor, Progress, quiet
from pipelines.run.summary import Summary, Tally
from pipelines.spec.template_job import TemplateJob
from pipelines.table import contents, generations, run_records
from pipelines.table.destroy_generation import Proof, destroy
from pipelines.table.generations import State
from pipelines.table.held import Destination
from pipelines.table.layout import destroyed_file, parse_shard_file, plan_folder
from pipelines.table.log_entries import Commit
from pipelines.table.orphans import destroy_orphans
from pipelines.table.run_records import RunRecord, RunState

_log = logging.getLogger("ironmask.reprotect")


@dataclass(frozen=True)
class HeldReprotection:
    """A destination that this process re-protects. allowed: people who may lose their template."""

    job: TemplateJob
    dest: Destination
    keyring: Keyring = field(repr=False)
    executor: Executor
    restart: bool = False
    allowed: int = 0


@dataclass(frozen=True)
class Renewed:
    """What a re-protection did. lost: people who have no template any more. missing: inputs of
    everybody's old templates that no new one was made from.
    """

    summary: Summary
    generation: int
    replaced: int
    lost: int
    missing: int
    proof: Proof

    @property
    def is_whole(self) -> bool:
        """Whether everything was made anew."""
        return not (self.summary.failed or self.lost or self.missing)

    @property
    def shortfall(self) -> str:
        """What was not made anew, in one line."""
        return (
            f"{self.summary.failed:,} inputs failed, {self.missing:,} are missing, {self.lost:,} "
            f"people have no template now; see `ironmask failures {self.summary.dest}`"
        )


def reprotect(held: HeldReprotection, progress: Progress = quiet) -> Renewed:
    """Do the whole job, or continue it where it was left off."""
    timer = steps.Timer()
    frozen = prepare(held)
    tally, resumed = run(held, frozen, progress)
    lost = switch(held)
    proof = destroy_old(held)
    return report(held, frozen, tally, resumed, lost, proof, timer.seconds())


def is_switched(held: HeldReprotection) -> bool:
    """Whether the new generation is live already, so that only the old one has to go."""
    return generations.live(held.dest.tables) == held.job.generation


def prepare(held: HeldReprotection) -> Plan:
    """Plan the new generation, or find the plan of the one that was begun."""
    job, dest = held.job, held.dest
    if is_switched(held):
        return _frozen(dest, job.generation)
    parent = job.renews
    assert parent is not None  # noqa: S101
    # One that was to be given up, and goes on.
    dest.store.delete([destroyed_file(dest.tables.dest, job.generation)])

    def begin() -> None:
        generations.prepare(dest, job.generation, parent, job.purpose)

    return run_begin.prepare_plan(job, dest, restart=held.restart, begin=begin)


def _frozen(dest: Destination, generation: int) -> Plan:
    """The plan of the run that wrote a generation and has not reported yet."""
    for record in _unfinished(dest, generation):
        return plans.load(plan_folder(dest.tables.dest, record.run_id), dest.store)[0]
    raise TableError(f"{dest.tables.dest}: no run is left that wrote generation {generation}")


def run(held: HeldReprotection, frozen: Plan, progress: Progress = quiet) -> tuple[Tally, int]:
    """Write the new generation beside the old one; readers see nothing of it."""
    if is_switched(held):
        return Tally(before=frozen.inputs), frozen.shards
    return steps.run(held.job, frozen, held.dest, held.executor, progress)


def switch(held: HeldReprotection) -> int:
    """Make the new generation live; return how many people lost their template.

    Raises `SourceError` where these are more than are allowed, `TamperedError` where a new row does
    not open. Then the old generation stays live.
    """
    job, dest = held.job, held.dest
    if not is_switched(held):
        destroy_orphans(dest.tables, dest.store, dest.check)
        lost = losses.refuse_losses(dest.tables, job, held.allowed)
        losses.open_some(dest.tables, job.generation, dest.keys)
        generations.switch(dest, job.generation, {"lost": lost.count})
        dest.log_seal.extend()
        _log.info("switched", extra={"generation": job.generation, "lost": lost.count})
    return int(generations.read(dest.tables)[job.generation].proof["lost"])


def destroy_old(held: HeldReprotection) -> Proof:
    """Destroy the generation that was replaced, once the seal depends on the new one alone."""
    job, dest = held.job, held.dest
    assert job.renews is not None  # noqa: S101
    dest.log_seal.rekey(dest.keys)
    if job.vault:
        _leave_other_models(dest, job.model)
    proof = destroy(dest, held.keyring, job.renews)
    _log.info("destroyed", extra={"generation": job.renews, "files": proof.files})
    return proof


def _leave_other_models(dest: Destination, model: str) -> None:
    """Take out of the vault what other models made: this one's runs kept everybody anew."""
    table = dest.tables.table("vault")
    others = {
        record.run_id
        for record in run_records.runs(dest.tables)
        if record.config["shapes"]["model"] != model
    }
    old = [p for p in table.files() if (f := parse_shard_file(p)) and f.run_id in others]
    application = f"vault/{model[:12]}"
    if old:
        sequence = dest.sequence("vault", application) + 1
        dest.commit(Commit("vault", [], application, sequence, old))
        dest.log_seal.extend()
    destroy_orphans(dest.tables, dest.store, dest.check)


def report(
    held: HeldReprotection,
    frozen: Plan,
    tally: Tally,
    resumed: int,
    lost: int,
    proof: Proof,
    seconds: float,
) -> Renewed:
    """Check the counts, record the run, and say what happened."""
    job = held.job
    assert job.renews is not None  # noqa: S101
    missing = contents.used_inputs(held.dest.tables, job.renews) - contents.used_inputs(
        held.dest.tables, job.generation
    )
    summary = steps.report(job, frozen, tally, resumed, held.dest, seconds)
    return Renewed(summary, job.generation, job.renews, lost, max(0, missing), proof)


def abandon(dest: Destination, keyring: Keyring) -> Proof:
    """Give up a generation that is being prepared: it is destroyed, and the live one stays.

    Raises `TableError` where none is.
    """
    found = generations.in_state(generations.read(dest.tables), State.PREPARING)
    if not found:
        raise TableError(f"{dest.tables.dest}: no generation is being prepared")
    (one,) = found
    for record in _unfinished(dest, one.number):
        run_begin.give_up(dest, record)
    destroy_orphans(dest.tables, dest.store, dest.check)
    proof = destroy(dest, keyring, one.number)
    dest.log_seal.end()
    return proof


def _unfinished(dest: Destination, generation: int) -> list[RunRecord]:
    return [
        record
        for record in run_records.runs(dest.tables)
        if record.config.get("generation") == generation and record.state == RunState.RUNNING
    ]
