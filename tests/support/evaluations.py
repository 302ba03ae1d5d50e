"""A small evaluation in memory: faces, its blocks, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ironmask.arrays import F32
from ironmask.centring import Centring
from ironmask.helper import DEFAULT_ENCODING
from pipelines.evaluation import blocks
from pipelines.evaluation.blocks import Sources
from pipelines.evaluation.frozen import READING, Evaluation
from pipelines.evaluation.results import Results, results
from support.destinations import WIDTH, vectors
from support.memory import MemoryStore

SOURCE: Final = "/memory/faces.parquet"
PEOPLE: Final = 12
EACH: Final = 3


def faces(noise: float = 0.2) -> F32:
    """`EACH` faces of each of some people, (k, WIDTH) float32."""
    own = np.repeat(vectors(PEOPLE), EACH, axis=0)
    return (own + noise * vectors(len(own), seed=8)).astype(np.float32)


def put(store: MemoryStore, embeddings: Sequence[Any], sex: Sequence[str] = ()) -> None:
    """Write the source. embeddings: None where a face could not be acquired."""
    values = [None if one is None else list(map(float, one)) for one in embeddings]
    names = [f"s{number // EACH:02d}" for number in range(len(values))]
    columns = {
        "subject_id": names,
        "embedding": pa.array(values, pa.list_(pa.float32())),
        "image": [f"{name}/{number}.jpg" for number, name in enumerate(names)],
        "sex": list(sex) or ["f" if number % 2 else "m" for number in range(len(values))],
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    store.write(SOURCE, memoryview(sink.getvalue()))


def evaluation(store: MemoryStore, **changes: Any) -> Evaluation:
    """An evaluation of the source as it is now."""
    base = Evaluation(
        source=SOURCE,
        version=store.version(SOURCE),
        out="/memory/out",
        protocols=("first:1",),
        listed=None,
        issued=None,
        alphas=(8,),
        tolerance=1,
        encodings=(DEFAULT_ENCODING,),
        centrings=(Centring.MEAN,),
        excluded=(),
        groups=(),
        model="m",
        seed="00",
        n=WIDTH,
        floor=-1.0,
        block=5,
        reading=READING,
        structure="quaternionic",
    )
    return replace(base, **changes)


def evaluated(asked: Evaluation, store: MemoryStore, order: Iterable[int] = ()) -> Results:
    """Run the blocks, in an order if one is given, and add them up."""
    sources = Sources(store)
    for number in order or blocks.plan(asked, sources).blocks:
        blocks.run(asked, sources, number)
    return results(asked, sources)
