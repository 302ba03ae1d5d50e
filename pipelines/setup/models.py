"""A model pack as what loads its detector and its recogniser."""

from __future__ import annotations

from functools import partial

from infra.faces.onnx_faces import FaceAligner, FaceRecogniser
from infra.models.packs import ModelPack, measured_impostors
from pipelines.ports import Aligner, Recogniser
from pipelines.preflight.calibrate import Model
from pipelines.spec.faces import FaceSettings
from pipelines.spec.template_job import DECLARED


def load(pack: ModelPack, faces: FaceSettings) -> tuple[Aligner, Recogniser]:
    """The detector and the recogniser of a pack."""
    return FaceAligner(pack, faces), FaceRecogniser(pack, faces)


def at_hand(pack: ModelPack | None) -> Model | None:
    """A pack as pre-flight takes it, if there is one."""
    return Model(pack.name, partial(load, pack)) if pack else None


def known_impostors(model: str, pack: ModelPack | None) -> tuple[tuple[float, float], ...]:
    """How alike strangers are to a job's model, if it is known: measured points (FMR, cosine)."""
    return measured_impostors(model.removeprefix(DECLARED), pack)
