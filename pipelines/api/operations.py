"""What operators ask of a table, as verbs."""

from __future__ import annotations

from collections.abc import Sequence

from infra.keys.key_file import KekRotation
from ironmask.errors import ParameterError
from pipelines.operations import failures as failing
from pipelines.operations import inventory, job
from pipelines.operations import prove as proving
from pipelines.operations import vacuum as vacuuming
from pipelines.operations.check import Report
from pipelines.operations.failures import Failures
from pipelines.operations.inventory import Inventory
from pipelines.operations.status import Status
from pipelines.operations.vacuum import Vacuumed
from pipelines.setup import places
from pipelines.table.erasing import Erased
from pipelines.table.evidence import Evidence


def inspect(dest: str) -> Inventory:
    """Count what a table holds: parameters, generations, rows, sizes, failures by reason.

    Raises `TableError` where there is none.

    >>> inspect("table/").inputs  # doctest: +SKIP
    """
    return inventory.inspect(dest)


def status(dest: str) -> Status:
    """Say how far the newest run of a table is: done, in flight, failed, left.

    Raises `TableError` where there is none.

    >>> status("table/").state  # doctest: +SKIP
    """
    return job.status(dest)


def failures(
    dest: str,
    *,
    keys: str | None = None,
    reasons: Sequence[str] = (),
    run: str | None = None,
) -> Failures:
    """Find the inputs that failed: those whose newest outcome is a failure.

    reasons, run: only those that failed for one of them, and in that run. Raises
    `ParameterError` for a reason that there is not, `TableError` for a run that there is not.

    >>> [found.reason for found in failures("table/").inputs]  # doctest: +SKIP
    """
    if isinstance(reasons, str):
        raise ParameterError("reasons are a list, also where there is one alone")
    return failing.failures(dest, keys, reasons=tuple(reasons), run_id=run)


def check(
    dest: str, *, keys: str | None = None, deep: bool = False, workers: int | None = None
) -> Report:
    """Check that a table is what was written: its seal, logs, files, digests, counts and owners.

    deep: open every helper as well. workers: files read at a time; by default one a core. Raises
    `KeyStoreError` where the keys are not at hand.

    >>> check("table/", deep=True).sound  # doctest: +SKIP
    """
    return job.check(dest, keys, deep=deep, workers=workers)


def vacuum(dest: str, *, keys: str | None = None) -> Vacuumed:
    """Destroy what killed tasks left behind: data files that no log lists, in all their versions.

    Raises `BusyError` while a run is under way, `TableError` where a log was changed.

    >>> vacuum("table/").files  # doctest: +SKIP
    """
    return vacuuming.vacuum(dest, keys)


def erase(
    dest: str, subjects: Sequence[str], *, dry_run: bool = False, keys: str | None = None
) -> dict[str, Erased]:
    """Destroy everything that a table holds of some subjects, but for the outcomes; it asks nobody.

    Returns what went, by subject, or with `dry_run` what would go, and then nothing is written. The
    same call finishes what was broken off. Raises `TableError` before anything goes, naming whoever
    was never there, `BusyError` where another run has to end first.

    >>> erase("table/", ["Ada", "Bob"])  # doctest: +SKIP
    """
    return job.erase(dest, subjects, keys, dry_run=dry_run)


def prove(
    dest: str,
    *,
    keys: str | None = None,
    generation: int | None = None,
    subject: str | None = None,
) -> Evidence:
    """Look for what a destroyed generation, or an erased subject, must not have left.

    Raises `ParameterError` unless one of the two is named.

    >>> prove("table/", generation=1).holds  # doctest: +SKIP
    """
    if (generation is None) == (subject is None):
        raise ParameterError("name either a generation or a subject")
    return proving.prove(dest, keys, generation=generation, subject=subject or "")


def rotate_kek(
    dest: str, kek: str | None = None, *, keys: str | None = None, vault: bool = False
) -> KekRotation:
    """Wrap a table's keys with another key-encryption key; no data file is touched.

    kek: `local:`, or the address of a KMS key; None: the present one, whose key has changed there.
    vault: the keys of the table's vault, in the file that `keys` names or beside the table's own.

    >>> rotate_kek("table/", "local:").keysets  # doctest: +SKIP
    """
    return places.rotate_kek(dest, kek, keys, vault=vault)
