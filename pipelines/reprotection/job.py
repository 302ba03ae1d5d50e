"""Re-protection: prepare a new generation, switch to it, destroy the old one, report.

Every step can be taken again, so that the same command goes on wherever it was broken off: before
the switch the old generation is live and whole, after it the new one is.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from ironmask.errors import TableError
from pipelines.plan import plans
from pipelines.plan.plans import Plan
from pipelines.ports import Keyring
from pipelines.reprotection import losses
from pipelines.run import begin as run_begin
from pipelines.run.course import Step
from pipelines.run.summary import Summary, Tally
from pipelines.run.template_run import TemplateRun
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


@dataclass
class Reprotection(TemplateRun):
    """A re-protection under way, or the rest of one that was broken off.

    keyring: holds the keys of all generations. max_lost: people who may lose their template. lost,
    proof, done: what the steps have found.
    """

    keyring: Keyring = field(kw_only=True, repr=False)
    max_lost: int = 0
    lost: int = field(init=False)
    proof: Proof = field(init=False)
    done: Renewed = field(init=False)

    @property
    def parent(self) -> int:
        """The generation that is replaced."""
        assert self.job.renews is not None  # noqa: S101
        return self.job.renews

    @property
    def is_switched(self) -> bool:
        """Whether the new generation is live already, so that only the old one has to go."""
        return generations.live(self.dest.tables) == self.job.generation

    def plan(self) -> None:
        """Plan the new generation, or find the plan of the one that was begun."""
        job, dest = self.job, self.dest
        if self.is_switched:
            self.frozen = _frozen(dest, job.generation)
            return
        # One that was to be given up, and goes on.
        dest.store.delete([destroyed_file(dest.tables.dest, job.generation)])

        def begin() -> None:
            generations.prepare(dest, job.generation, self.parent, job.purpose)

        told = self.watch.told
        self.frozen = run_begin.prepare_plan(
            job, dest, restart=self.restart, begin=begin, told=told
        )

    def run(self) -> None:
        """Write the new generation beside the old one; readers see nothing of it."""
        if self.is_switched:
            self.tally, self.resumed = Tally(before=self.frozen.inputs), self.frozen.shards
        else:
            super().run()

    def switch(self) -> None:
        """Make the new generation live, and count who lost their template.

        Raises `SourceError` where these are more than are allowed, `TamperedError` where a new row
        does not open. Then the old generation stays live.
        """
        dest, number = self.dest, self.job.generation
        if not self.is_switched:
            destroy_orphans(dest.tables, dest.store, dest.check)
            lost = losses.refuse_losses(dest.tables, self.job, self.max_lost)
            losses.open_some(dest.tables, number, dest.keys)
            generations.switch(dest, number, {"lost": lost.count})
            dest.log_seal.extend()
            _log.info("switched", extra={"generation": number, "lost": lost.count})
        self.lost = int(generations.read(dest.tables)[number].proof["lost"])

    def destroy(self) -> None:
        """Destroy the generation that was replaced, once the seal depends on the new one alone."""
        dest = self.dest
        dest.log_seal.rekey(dest.keys)
        if self.job.vault:
            _leave_other_models(dest, self.job.model)
        self.proof = destroy(dest, self.keyring, self.parent)
        _log.info("destroyed", extra={"generation": self.parent, "files": self.proof.files})

    def report(self) -> None:
        """Check the counts, and record the run."""
        tables, number = self.dest.tables, self.job.generation
        missing = contents.used_inputs(tables, self.parent) - contents.used_inputs(tables, number)
        super().report()
        self.done = Renewed(
            self.summary, number, self.parent, self.lost, max(0, missing), self.proof
        )


STEPS: Final = (
    Step("plan", Reprotection.plan),
    Step("run and commit", Reprotection.run, again=True),
    Step("switch", Reprotection.switch),
    Step("destroy", Reprotection.destroy, again=True),
    Step("report", Reprotection.report),
)


def _frozen(dest: Destination, generation: int) -> Plan:
    """The plan of the run that wrote a generation and has not reported yet."""
    for record in _unfinished(dest, generation):
        return plans.load(plan_folder(dest.tables.dest, record.run_id), dest.store)[0]
    raise TableError(f"{dest.tables.dest}: no run is left that wrote generation {generation}")


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
