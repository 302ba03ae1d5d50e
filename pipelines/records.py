"""What the tables hold: closed outcome and reason codes, and the Arrow schemas."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

import pyarrow as pa


class Outcome(StrEnum):
    """What became of one input; every input ends in exactly one."""

    USED = "used"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    SKIPPED = "skipped"


class Reason(StrEnum):
    """Why an input was not used. The list is closed: readers may rely on it."""

    NONE = ""
    # the file
    UNREADABLE = "unreadable"
    CHANGED_SINCE_PLAN = "changed_since_plan"
    EMPTY_FILE = "empty_file"
    TOO_LARGE = "too_large"
    NAME_NOT_UTF8 = "name_not_utf8"
    HIDDEN_FILE = "hidden_file"
    NO_SUBJECT = "no_subject"
    EMPTY_SUBJECT = "empty_subject"
    # the picture
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    ANIMATED = "animated"
    DECODE_FAILED = "decode_failed"
    # the face
    NO_FACE = "no_face"
    SEVERAL_FACES = "several_faces"
    FACE_TOO_SMALL = "face_too_small"
    FACE_BLURRED = "face_blurred"
    LOW_QUALITY = "low_quality"
    # the embedding
    WRONG_WIDTH = "wrong_width"
    NOT_FINITE = "not_finite"
    ZERO_NORM = "zero_norm"
    OPPOSED_EMBEDDINGS = "opposed_embeddings"
    PROTECT_FAILED = "protect_failed"
    # the subject
    DUPLICATE_CONTENT = "duplicate_content"
    DUPLICATE_OTHER_SUBJECT = "duplicate_other_subject"
    ALREADY_ENROLLED = "already_enrolled"


_TIME: Final = pa.timestamp("us", tz="UTC")

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
        pa.field("images_used", pa.int32(), nullable=False),
        pa.field("quality", pa.float32()),
        pa.field("source_uris", pa.list_(pa.string()), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("enrolled_at", _TIME, nullable=False),
    ]
)

# identities: digests of the content, by which a later run knows it again: `sha256:` and `md5:` of a
# file, `vec:` of a stored embedding, keyed with the generation's keys.
INPUTS: Final = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("subject_id", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("identities", pa.list_(pa.string())),
        pa.field("face_x1", pa.float32()),
        pa.field("face_y1", pa.float32()),
        pa.field("face_x2", pa.float32()),
        pa.field("face_y2", pa.float32()),
        pa.field("faces", pa.int32()),
        pa.field("det_score", pa.float32()),
        pa.field("sharpness", pa.float32()),
        pa.field("quality", pa.float32()),
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

TABLES: Final = MappingProxyType(
    {
        "templates": (TEMPLATES, ["generation"]),
        "inputs": (INPUTS, []),
        "runs": (RUNS, []),
        "metrics": (METRICS, []),
    }
)
"""Schema and partition columns of each table of a destination."""
