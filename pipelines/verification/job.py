"""Probe images compared with a subject's live template."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.verification.probe import Verdict
from pipelines.verification.verifier import Verifier


def verify(
    dest: str, subject: str, images: Sequence[str], model: str | None, keys: str | None
) -> list[Verdict]:
    """Verify probe images against a subject's template."""
    with Verifier(dest, keys, model) as verifier:
        return verifier.verify(subject, images)
