"""What may become of an input, and why: closed codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """What became of one input; every input ends in exactly one."""

    USED = "used"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    SKIPPED = "skipped"


class Reason(StrEnum):
    """Why an input was not used. The list is closed: readers may rely on it.

    The last two stand beside inputs that a re-protection used all the same, as well.
    """

    NONE = ""
    # the file
    UNREADABLE = "unreadable"
    CHANGED_SINCE_PLAN = "changed_since_plan"
    EMPTY_FILE = "empty_file"
    TOO_LARGE = "too_large"
    NAME_NOT_UTF8 = "name_not_utf8"
    BAD_ADDRESS = "bad_address"
    SECRET_IN_ADDRESS = "secret_in_address"  # noqa: S105 - no password
    OUTSIDE_ROOTS = "outside_roots"
    OWN_FILE = "own_file"
    LINK_ELSEWHERE = "link_elsewhere"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
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
    DECODER_CRASHED = "decoder_crashed"
    DECODER_TIMEOUT = "decoder_timeout"
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
    OTHER_FACE = "other_face"
    FACES_DISAGREE = "faces_disagree"
    ALREADY_ENROLLED = "already_enrolled"
    ERASED = "erased"
    # what was used, and its template lay in a data file that was lost
    LOST = "lost"


class Unanswered(StrEnum):
    """Why a probe has no answer, whatever it shows; the other reasons are those of `Reason`."""

    NO_TEMPLATE = "no_template"
    SEVERAL_TEMPLATES = "several_templates"


FAILURES: Final = frozenset(Reason) - {
    Reason.NONE,
    Reason.LINK_ELSEWHERE,
    Reason.HIDDEN_FILE,
    Reason.EMPTY_SUBJECT,
    Reason.DUPLICATE_CONTENT,
    Reason.DUPLICATE_OTHER_SUBJECT,
    Reason.ALREADY_ENROLLED,
    Reason.ERASED,
    Reason.LOST,
}
"""Reasons of inputs that failed; the others are of inputs that were skipped, were duplicates, or
were used for a template that is gone."""

ACQUISITION: Final = frozenset(
    {
        Reason.NO_FACE,
        Reason.SEVERAL_FACES,
        Reason.FACE_TOO_SMALL,
        Reason.FACE_BLURRED,
        Reason.LOW_QUALITY,
    }
)
"""Failures to acquire: the image is sound, but no usable face was found in it."""

DISAGREEMENT: Final = (Reason.OTHER_FACE, Reason.FACES_DISAGREE)
"""Of inputs whose subject has faces of several people: the minority's, or all where none is one."""
