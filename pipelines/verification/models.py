"""The models that verify, found and loaded once, for any number of threads."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock, RLock
from typing import Final

from infra.faces.onnx_faces import FaceAligner, FaceRecogniser
from infra.models.installed import find_fingerprint, find_installed
from infra.models.packs import ModelPack, find_pack
from ironmask.errors import ParameterError
from pipelines.ports import F32
from pipelines.spec.faces import FaceSettings
from pipelines.spec.template_job import DECLARED

# Two runs of one table may have looked for faces in two ways.
_KEPT: Final = 2


class LoadedModel:
    """A detector and a recogniser, for several threads."""

    def __init__(self, pack: ModelPack, faces: FaceSettings) -> None:
        """Raises as `FaceAligner` and `FaceRecogniser` do."""
        self._aligner = FaceAligner(pack, faces)
        self._recogniser = FaceRecogniser(pack, faces)
        self._lock = Lock()

    def embed(self, image: bytes) -> F32:
        """The embedding of the face in an image, (n,) float32. Raises `ImageError`."""
        # One child process decodes, one picture at a time, and the detector keeps what it last did.
        with self._lock:
            crop = self._aligner.align(image).crop
        # A session of onnxruntime serves several threads, and the crop is a copy.
        embedding: F32 = self._recogniser.embed(crop[None])[0]
        return embedding

    def close(self) -> None:
        """End the decoder's process, once the picture in hand is done."""
        with self._lock:
            self._aligner.close()


class Models:
    """Packs by what rows record of them, and their models: each loaded at its first image."""

    def __init__(self, name: str | None) -> None:
        """name: the pack that is to be used, or a folder; None for the one that a row records."""
        self._name = name
        self._lock = RLock()
        self._packs: dict[str, ModelPack] = {}
        self._loaded: OrderedDict[tuple[ModelPack, FaceSettings], LoadedModel] = OrderedDict()
        self._is_closed = False

    def pack(self, recorded: str) -> ModelPack:
        """The pack to use for a row, by the model that the row records.

        Raises `ModelError` where it is not on this machine, or damaged.
        """
        known = self._name or recorded
        with self._lock:
            if known not in self._packs:
                self._packs[known] = _found(self._name, recorded)
            return self._packs[known]

    def loaded(self, pack: ModelPack, faces: FaceSettings) -> LoadedModel:
        """The models of a pack, for one way to look for faces.

        Raises `ModelError`, and `ParameterError` once they were let go: nobody would end the
        process of one that came later.
        """
        with self._lock:
            if self._is_closed:
                raise ParameterError("the verifier is closed: make another one")
            if (pack, faces) not in self._loaded:
                self._loaded[pack, faces] = LoadedModel(pack, faces)
            self._loaded.move_to_end((pack, faces))
            while len(self._loaded) > _KEPT:
                # Whoever still uses it holds it; its process ends with its last user.
                self._loaded.popitem(last=False)
            return self._loaded[pack, faces]

    def close(self) -> None:
        """Let the models go."""
        with self._lock:
            self._is_closed = True
            gone = list(self._loaded.values())
            self._loaded.clear()
        for model in gone:
            model.close()


def _found(name: str | None, recorded: str) -> ModelPack:
    if name:
        return find_pack(name)
    if recorded.startswith(DECLARED):
        return find_installed(recorded.removeprefix(DECLARED))
    return find_fingerprint(recorded)
