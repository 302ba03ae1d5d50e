"""One block of an evaluation in any process: what it is built from, and how it runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from pipelines.evaluation import blocks
from pipelines.evaluation.blocks import Sources
from pipelines.evaluation.frozen import Evaluation, Issued
from pipelines.evaluation.stored_templates import Access
from pipelines.run.work import Work
from pipelines.setup.ports import kept_keys, shared_store, shared_tables

Storage = tuple[tuple[str, Any], ...]
"""`StorageSettings.public()`."""


def sources(storage: Storage, issued: Issued | None) -> Sources:
    """Where the faces and templates of an evaluation come from."""
    store = shared_store(storage)
    if issued is None:
        return Sources(store)
    opener = partial(kept_keys, Path(issued.keys), issued.table_id, issued.generation)
    return Sources(
        store,
        Access(
            issued, shared_tables(issued.dest, storage, Path(issued.keys), issued.table_id), opener
        ),
    )


def block_work(storage: Storage, evaluation: Evaluation) -> Work:
    """An evaluation's blocks as units of work."""
    return Work(whole_block, (storage, evaluation))


def whole_block(storage: Storage, evaluation: Evaluation, number: int) -> int:
    """One block of an evaluation: on one thread, so that sums come out the same anywhere."""
    with threadpool_limits(1):
        return blocks.run(evaluation, sources(storage, evaluation.issued), number)
