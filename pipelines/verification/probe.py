"""Does this probe match that row?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.models.installed import label_of
from infra.models.packs import ModelPack
from ironmask.errors import MismatchError, TemplateError
from ironmask.template import ProtectedTemplate, verify_batch
from pipelines.ports import F32, GenerationKeys
from pipelines.spec.template_job import DECLARED
from pipelines.table.row_cipher import open_row, row_key


@dataclass(frozen=True)
class Verdict:
    """The answer for one probe: yes, no, or why there is none.

    probe: its name or address. accepted: None where there is no answer. reason: why not, a code of
    `pipelines.spec.outcomes`. detail: the same in words. There is no score.
    """

    probe: str
    accepted: bool | None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class OpenedRow:
    """A row of `templates` whose helper is decrypted, once for all probes that it is asked for."""

    template: ProtectedTemplate = field(repr=False)
    key: bytes = field(repr=False)

    def matches(self, embeddings: F32) -> list[bool]:
        """Tell for each probe embedding, (k, n), whether it matches.

        Raises `TemplateError` for vectors that cannot be probes.
        """
        return [bool(answer) for answer in verify_batch(self.template, embeddings, self.key)]

    def verdict(self, probe: str, embedding: F32) -> Verdict:
        """The answer for one probe, (n,): one that cannot be a probe has none."""
        try:
            (accepted,) = self.matches(embedding[None])
        except TemplateError as error:
            return Verdict(probe, None, error.reason, str(error))
        return Verdict(probe, accepted)


def opened(table_id: str, row: dict[str, Any], keys: GenerationKeys) -> OpenedRow:
    """Decrypt a row for verification. Raises `TamperedError` where it is not as it was made."""
    return OpenedRow(open_row(table_id, row, keys), row_key(table_id, row, keys))


def verify_embeddings(
    table_id: str, row: dict[str, Any], embeddings: F32, keys: GenerationKeys
) -> list[bool]:
    """Tell for each probe embedding, (k, n), whether it matches the row."""
    return opened(table_id, row, keys).matches(embeddings)


def unanswered(probes: Sequence[str], reason: str, detail: str) -> list[Verdict]:
    """The same lack of an answer for several probes."""
    return [Verdict(probe, None, reason, detail) for probe in probes]


def check_model(row: dict[str, Any], pack: ModelPack) -> None:
    """Raise `MismatchError` where a pack is not the one that enrolled a row.

    Stored embeddings may only say the name of the model that made them.
    """
    if row["model"] in (pack.fingerprint, DECLARED + pack.name):
        return
    if row["model"].startswith(DECLARED):
        said = row["model"].removeprefix(DECLARED)
        raise MismatchError(
            f"subject {row['subject_id']!r} was enrolled from stored embeddings of a model "
            f"declared as {said!r}, not {pack.name!r}: only a pack of that name can be compared"
        )
    raise MismatchError(
        f"subject {row['subject_id']!r} was enrolled with model {label_of(row['model'])}, not "
        f"{pack.label}: give that model with --model, or leave --model out"
    )
