"""Does this probe match that row?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ironmask.errors import ImageError, MismatchError, TemplateError
from ironmask.template import verify_batch
from pipelines.ports import F32, Aligner, GenerationKeys, Recogniser
from pipelines.spec.template_job import DECLARED
from pipelines.table.row_cipher import open_row, row_key


@dataclass(frozen=True)
class Verdict:
    """The answer for one probe: yes, no, or why there is none."""

    probe: str
    accepted: bool | None
    reason: str = ""
    detail: str = ""


def verify_embeddings(
    table_id: str, row: dict[str, Any], embeddings: F32, keys: GenerationKeys
) -> list[bool]:
    """Tell for each probe embedding, (k, n), whether it matches the row."""
    protected = open_row(table_id, row, keys)
    answers = verify_batch(protected, embeddings, row_key(table_id, row, keys))
    return [bool(answer) for answer in answers]


def verify_images(
    table_id: str,
    row: dict[str, Any],
    images: Sequence[tuple[str, bytes]],
    model: tuple[str, str],
    aligner: Aligner,
    recogniser: Recogniser,
    keys: GenerationKeys,
) -> list[Verdict]:
    """Tell for each probe image, given as (name, content), whether it matches the row.

    model: fingerprint and name of the pack at hand.
    Raises `MismatchError` where the model is not the one that enrolled the subject.
    """
    _check_model(row, *model)
    verdicts: list[Verdict] = []
    for name, data in images:
        try:
            face = aligner.align(data)
            embedding = recogniser.embed(face.crop[None])
            accepted = verify_embeddings(table_id, row, embedding, keys)[0]
        except (ImageError, TemplateError) as error:
            verdicts.append(Verdict(name, None, error.reason, str(error)))
        else:
            verdicts.append(Verdict(name, accepted))
    return verdicts


def _check_model(row: dict[str, Any], fingerprint: str, name: str) -> None:
    """Stored embeddings may only say the name of the model that made them."""
    if row["model"] in (fingerprint, DECLARED + name):
        return
    if row["model"].startswith(DECLARED):
        said = row["model"].removeprefix(DECLARED)
        raise MismatchError(
            f"subject {row['subject_id']!r} was enrolled from stored embeddings of a model "
            f"declared as {said!r}, not {name!r}: only a pack of that name can be compared"
        )
    raise MismatchError(
        f"subject {row['subject_id']!r} was enrolled with model {row['model'][:12]}, not "
        f"{name} ({fingerprint[:12]}): give that model with --model"
    )
