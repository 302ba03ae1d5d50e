"""Photos of a shard: read, decoded, detected, aligned, embedded."""

from __future__ import annotations

import numpy as np

from ironmask.errors import ImageError
from pipelines.plan.reach import of_job
from pipelines.ports import F32, U8, Aligner, Recogniser
from pipelines.shard.context import AlignedShard, Context, InputRow, clock, input_row, no_crops
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table import identities


def prepare(context: Context, shard: int, aligner: Aligner) -> AlignedShard:
    """Read, decode, detect and align the inputs of one shard."""
    timings: dict[str, float] = {}
    planned = context.plan.shard(shard, context.store)
    rows = [input_row(context, item) for item in planned]
    _refuse_out_of_reach(rows, context)
    todo = [place for place, row in enumerate(rows) if not row.outcome]
    limit = context.job.faces.max_bytes
    addresses = [rows[place].address for place in todo]
    data = context.store.read_many(addresses, limit, context.job.source)
    crops: list[U8] = []
    indices: list[int] = []
    for place in todo:
        with clock(timings, "read"):
            content = next(data)
        with clock(timings, "detect"):
            crop = _align(context, rows[place], content, planned[place]["content"], aligner)
        if crop is not None:
            crops.append(crop)
            indices.append(place)
    stacked = np.stack(crops) if crops else no_crops()
    return AlignedShard(rows, indices, stacked, timings)


def _refuse_out_of_reach(rows: list[InputRow], context: Context) -> None:
    """Settle inputs that have left their allowed places: a link may have changed meanwhile."""
    reach = of_job(context.job, context.store)
    for row in rows:
        if not row.outcome and (found := reach.fault(row.address)):
            row.settle(Outcome.FAILED, *found)


def _align(
    context: Context,
    row: InputRow,
    content: bytes | OSError,
    planned: str | None,
    aligner: Aligner,
) -> U8 | None:
    """Record the face of one image. Returns its crop, None where it cannot be used."""
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
    try:
        face = aligner.align(content)
    except ImageError as error:
        row.settle(Outcome.FAILED, error.reason, str(error))
        return None
    row.face = {
        "box": [float(edge) for edge in face.box],
        "faces": face.faces,
        "det_score": float(face.score),
        "sharpness": float(face.sharpness),
    }
    return face.crop


def embed(prepared: AlignedShard, recogniser: Recogniser) -> F32:
    """Return the raw embeddings of a shard's crops, (k, n) float32."""
    if not len(prepared.crops):
        return np.empty((0, recogniser.n), dtype=np.float32)
    return recogniser.embed(prepared.crops)
