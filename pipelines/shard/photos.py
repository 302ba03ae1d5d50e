"""Photos of a shard: read, decoded, detected, aligned, embedded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from ironmask.errors import ImageError
from pipelines.plan.reach import of_job
from pipelines.ports import F32, U8, AlignedFace, Recogniser
from pipelines.shard.context import AlignedShard, Context, InputRow, clock, input_row, no_crops
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table import identities

Numbered = tuple[int, bytes]
"""A number of the caller's own, and the content of an image."""


class ManyAligner(Protocol):
    """Decodes images, finds their faces and aligns them."""

    def align_many(
        self, contents: Iterable[Numbered]
    ) -> Iterator[tuple[int, AlignedFace | ImageError]]:
        """The face of each, or why it cannot be used, in the order of the images.

        It may take a few images further than it has given faces.
        """
        ...


def prepare(context: Context, shard: int, aligner: ManyAligner) -> AlignedShard:
    """Read, decode, detect and align the inputs of one shard."""
    timings: dict[str, float] = {}
    planned = context.plan.shard(shard, context.store)
    rows = [input_row(context, item) for item in planned]
    _refuse_out_of_reach(rows, context)
    crops: list[U8] = []
    indices: list[int] = []
    names = [item["content"] for item in planned]
    with clock(timings, "detect"):
        for place, face in aligner.align_many(_contents(context, rows, names, timings)):
            if isinstance(face, ImageError):
                rows[place].settle(Outcome.FAILED, face.reason, str(face))
                continue
            rows[place].face = _facts(face)
            crops.append(face.crop)
            indices.append(place)
    # Contents are read while faces are asked for.
    timings["detect"] -= timings.get("read", 0.0)
    stacked = np.stack(crops) if crops else no_crops()
    return AlignedShard(rows, indices, stacked, timings)


def _refuse_out_of_reach(rows: list[InputRow], context: Context) -> None:
    """Settle inputs that have left their allowed places: a link may have changed meanwhile."""
    reach = of_job(context.job, context.store)
    for row in rows:
        if not row.outcome and (found := reach.fault(row.address)):
            row.settle(Outcome.FAILED, *found)


def _contents(
    context: Context, rows: list[InputRow], planned: list[str | None], timings: dict[str, float]
) -> Iterator[Numbered]:
    """Contents of the rows that have no outcome yet, with their places; the others are settled."""
    todo = [place for place, row in enumerate(rows) if not row.outcome]
    addresses = [rows[place].address for place in todo]
    data = context.store.read_many(addresses, context.job.faces.max_bytes, context.job.source)
    for place in todo:
        with clock(timings, "read"):
            content = next(data)
        if (found := _taken(context, rows[place], content, planned[place])) is not None:
            yield place, found


def _taken(
    context: Context, row: InputRow, content: bytes | OSError, planned: str | None
) -> bytes | None:
    """The content of an input, named in its row; None where it cannot be used."""
    if isinstance(content, OSError):
        row.settle(Outcome.FAILED, getattr(content, "reason", Reason.UNREADABLE), str(content))
        return None
    row.contents = identities.of_file(content)
    named = identities.Identities.of(context.keys, context.job.generation)
    # A content that could not be read for the plan was never compared with the other inputs. Older
    # plans have the own names.
    if planned not in [*named.all_named(row.contents), *row.contents]:
        row.settle(Outcome.FAILED, Reason.CHANGED_SINCE_PLAN, "the content differs from the plan's")
        return None
    return content


def _facts(face: AlignedFace) -> dict[str, Any]:
    return {
        "box": [float(edge) for edge in face.box],
        "faces": face.faces,
        "det_score": float(face.score),
        "sharpness": float(face.sharpness),
    }


def embed(prepared: AlignedShard, recogniser: Recogniser) -> F32:
    """Return the raw embeddings of a shard's crops, (k, n) float32."""
    if not len(prepared.crops):
        return np.empty((0, recogniser.n), dtype=np.float32)
    return recogniser.embed(prepared.crops)
