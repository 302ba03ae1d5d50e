"""The Arrow schemas of the tables, and how a table becomes a Parquet file."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ironmask.errors import StorageError
from pipelines.ports import Store

_TIME: Final = pa.timestamp("us", tz="UTC")

# The last four columns came with version 2 of the scheme; null in rows of version 1. conditioner:
# fingerprint of a map that embeddings went through first; null for none. own_secret: whether a
# secret of the row's own takes part in its tags. Both are reserved, and neither is written yet.
TEMPLATES: Final = pa.schema(
    [
        pa.field("template_id", pa.string(), nullable=False),
        pa.field("subject_id", pa.string(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("scheme_version", pa.int32(), nullable=False),
        pa.field("n", pa.int32(), nullable=False),
        pa.field("alpha", pa.int32(), nullable=False),
        pa.field("tolerance", pa.int32(), nullable=False),
        pa.field("encoding", pa.string(), nullable=False),
        pa.field("helper", pa.binary(), nullable=False),
        pa.field("digests", pa.binary(), nullable=False),
        pa.field("sealed", pa.bool_(), nullable=False),
        pa.field("key_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("centring", pa.string(), nullable=False),
        pa.field("filling", pa.float32(), nullable=False),
        pa.field("images_used", pa.int32(), nullable=False),
        pa.field("details", pa.binary()),
        pa.field("source_uris", pa.list_(pa.string()), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("enrolled_at", _TIME, nullable=False),
        pa.field("code_width", pa.int32()),
        pa.field("structure", pa.string()),
        pa.field("conditioner", pa.string()),
        pa.field("own_secret", pa.bool_()),
    ]
)

# identities: keyed digests of the content; later runs recognise it by them. details: encrypted:
# facts about the photo, and the detail of an outcome. detail: empty; older tables use it.
INPUTS: Final = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("subject_id", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("identities", pa.list_(pa.string())),
        pa.field("details", pa.binary()),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)

RUNS: Final = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("at", _TIME, nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("config", pa.string(), nullable=False),
        pa.field("versions", pa.string(), nullable=False),
        pa.field("counts", pa.string(), nullable=False),
        pa.field("timings", pa.string(), nullable=False),
    ]
)

METRICS: Final = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("numerator", pa.int64()),
        pa.field("denominator", pa.int64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("at", _TIME, nullable=False),
    ]
)

# One row for each step of a generation's life; the furthest one counts. parent: the generation that
# it replaces. proof: JSON, facts about the step.
GENERATIONS: Final = pa.schema(
    [
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("parent", pa.int32()),
        pa.field("key_id", pa.string(), nullable=False),
        pa.field("at", _TIME, nullable=False),
        pa.field("proof", pa.string(), nullable=False),
    ]
)

# Empty unless subjects were enrolled with a vault. identities: null; older tables have them.
VAULT: Final = pa.schema(
    [
        pa.field("subject_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("identities", pa.list_(pa.string())),
        pa.field("model", pa.string(), nullable=False),
        pa.field("embedding", pa.binary(), nullable=False),
        pa.field("key_id", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)

TABLES: Final = MappingProxyType(
    {
        "templates": (TEMPLATES, ["generation"]),
        "inputs": (INPUTS, []),
        "runs": (RUNS, []),
        "metrics": (METRICS, []),
        "generations": (GENERATIONS, []),
        "vault": (VAULT, []),
    }
)
"""Schema and partition columns of each table of a destination."""


PARAMS: Final = ("scheme_version", "n", "alpha", "tolerance", "code_width", "structure")
"""Columns of templates that `Params.recorded` reads."""

_VERSION_2: Final = ("code_width", "structure", "conditioner", "own_secret")
TEMPLATES_OF_BEFORE: Final = (
    [name for name in TEMPLATES.names if name not in _VERSION_2],
    [
        "quality" if name == "details" else name
        for name in TEMPLATES.names
        if name not in _VERSION_2
    ],
)
"""Columns of older templates files."""

COLUMNS_OF_BEFORE: Final = MappingProxyType(
    {
        "inputs": [
            "uri", "subject_id", "outcome", "reason", "detail", "sha256", "identities",
            "face_x1", "face_y1", "face_x2", "face_y2", "faces", "det_score", "sharpness",
            "quality", "shard", "run_id",
        ],
    }
)  # fmt: skip
"""Columns of older files, in which facts about a photo are not encrypted."""


def as_parquet(table: pa.Table) -> memoryview:
    """A table as a Parquet file in memory."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return memoryview(sink.getvalue())


def of_parquet(uri: str, store: Store) -> pa.Table:
    """The table in a file of results. Raises `StorageError` for a damaged one."""
    with store.open(uri) as handle:
        try:
            return pq.read_table(handle)
        except pa.ArrowInvalid:
            raise StorageError(f"{uri} is damaged: remove it and run the same command") from None
