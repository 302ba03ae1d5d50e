"""Photographs of real people, and what a real model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infra.faces.onnx_faces import FaceAligner, FaceRecogniser
from infra.models.packs import find_pack
from ironmask.arrays import F32
from ironmask.errors import ImageError
from pipelines.spec.faces import FaceSettings


def photographs(faces: Path) -> dict[str, list[Path]]:
    """The images of each subject, by name."""
    return {folder.name: sorted(folder.iterdir()) for folder in sorted(faces.iterdir())}


def embed_images(model: Path, images: Sequence[Path]) -> list[F32 | None]:
    """The raw embedding of each image; None where no face can be taken from it."""
    pack, settings = find_pack(str(model)), FaceSettings()
    aligner, recogniser = FaceAligner(pack, settings), FaceRecogniser(pack, settings)
    return [_embed(path, aligner, recogniser) for path in images]


def _embed(path: Path, aligner: FaceAligner, recogniser: FaceRecogniser) -> F32 | None:
    try:
        face = aligner.align(path.read_bytes())
    except ImageError:
        return None
    vector: F32 = recogniser.embed(face.crop[None])[0]
    return vector
