"""What flows share: steps as Prefect tasks, what the server shows, and a server that is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

from infra import orchestrator

orchestrator.prepare_environment()

import httpx  # noqa: E402
from prefect import task  # noqa: E402
from prefect.artifacts import (  # noqa: E402
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.context import FlowRunContext, TaskRunContext  # noqa: E402
from prefect.exceptions import PrefectException  # noqa: E402
from prefect.logging.handlers import APILogHandler  # noqa: E402

from infra.telemetry import also_to  # noqa: E402
from ironmask.errors import (  # noqa: E402
    IronmaskError,
    NothingToDoError,
    StorageError,
    WorkerError,
)
from pipelines.plan.plans import Plan  # noqa: E402
from pipelines.report.sheets import Sheet  # noqa: E402
from pipelines.run.course import Progress, Step  # noqa: E402
from pipelines.run.summary import Tally  # noqa: E402

_log = logging.getLogger("ironmask.enrol")
_AGAIN: Final[dict[str, Any]] = {"retries": 2, "retry_delay_seconds": [5, 30]}
# A commit is shown at once; what is done and not committed, so often.
_SHOWN_S: Final = 30.0
T = TypeVar("T")


class PartialError(Exception):
    """A run that is complete, and is not what was asked for. done: what it did."""

    def __init__(self, message: str, done: Any) -> None:
        super().__init__(message)
        self.done = done


class Opaque(Generic[T]):
    """A value that Prefect hands on as it is: it walks through those that are collections."""

    def __init__(self, value: T) -> None:
        self.value = value


def as_task(step: Step[T], job: T) -> None:
    """Take a step of a job as a Prefect task of its name.

    That nothing is to be done is no failure of the task, and is raised outside of it.
    """

    def taken() -> NothingToDoError | None:
        try:
            with also_to(_ToServer()):
                step.take(job)
        except NothingToDoError as nothing:
            return nothing
        return None

    again = {**_AGAIN, "retry_condition_fn": worth_retrying} if step.again else {}
    # The job is not passed to the task, for Prefect would walk through it.
    nothing = task(name=step.name, cache_policy=NO_CACHE, **again)(taken)()
    if nothing:
        raise nothing


class _ToServer(APILogHandler):
    """Shows our events beside the run that they are of; what is logged outside of one stays out."""

    def emit(self, record: logging.LogRecord) -> None:
        if TaskRunContext.get() or FlowRunContext.get():
            super().emit(record)


async def worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """A store may recover and a worker may come back; a refusal stays one."""
    try:
        await state.result()
    except IronmaskError as error:
        return isinstance(error, StorageError | WorkerError)
    except Exception:  # noqa: BLE001 - any other failure of the cluster is worth a resume
        return True
    return False


@contextmanager
def answered() -> Iterator[None]:
    """A Prefect server that does not answer is a `WorkerError`."""
    # The command line says itself what went wrong, in one line; the server keeps the rest.
    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).propagate = False
    try:
        yield
    except (RuntimeError, httpx.HTTPError) as error:
        if isinstance(error, httpx.HTTPError) or "API" in str(error):
            raise WorkerError(
                f"the Prefect server does not answer ({type(error).__name__}): check "
                "PREFECT_API_URL, or add --no-prefect"
            ) from None
        raise


def publish(made: Iterable[Sheet]) -> None:
    """Show tables as artifacts of the run."""
    for sheet in made:
        rows = [dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows]
        create_table_artifact(table=rows, description=f"{sheet.title}. {sheet.note}")


def show(key: str, rows: Iterable[tuple[str, str]], description: str) -> None:
    """Show facts in the server; what is done stays done where that fails."""
    with _optional():
        create_table_artifact(
            key=key,
            table=[{"what": name, "value": value} for name, value in rows],
            description=description,
        )


def counted(progress: Progress) -> Progress:
    """A progress display, and an artifact of the flow run that counts what is committed."""
    shown: tuple[Any, int] = None, -1
    at = 0.0

    def update(plan: Plan, tally: Tally) -> None:
        nonlocal shown, at
        progress(plan, tally)
        artifact, last = shown
        committed = tally.before + tally.committed
        if committed == last and time.monotonic() - at < _SHOWN_S:
            return
        at = time.monotonic()
        share = 100.0 * committed / max(plan.inputs, 1)
        said = (
            f"{committed:,} of {plan.inputs:,} inputs committed, "
            f"{tally.before + tally.inputs:,} done"
        )
        with _optional():
            if artifact is None:
                artifact = create_progress_artifact(share, "ironmask-progress", said)
            else:
                update_progress_artifact(artifact, share, said)
        shown = artifact, committed

    return update


@contextmanager
def _optional() -> Iterator[None]:
    """An artifact that the server refuses is done without."""
    try:
        yield
    except (RuntimeError, httpx.HTTPError, PrefectException) as error:
        _log.warning("no artifact: the Prefect server refused it (%s)", type(error).__name__)
