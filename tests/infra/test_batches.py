"""Faces found in batches, by a detector that may be elsewhere: the same as one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.shared import SHARED

from infra.faces import batch_aligner
from infra.faces.batch_aligner import BatchAligner
from infra.faces.decoder import Decoder
from infra.faces.detector import BatchDetector, Faces, fitted
from infra.faces.onnx_faces import FaceAligner
from infra.models.files import file_digest
from infra.models.packs import ModelPack, find_pack
from ironmask.arrays import F64
from ironmask.errors import ImageError, ParameterError
from pipelines.ports import U8, AlignedFace
from pipelines.spec.faces import FaceSettings

LFW = SHARED / "faces" / "lfw_dev"
SETTINGS = FaceSettings()
FILES = 40


@pytest.fixture(scope="module")
def pack() -> ModelPack:
    if not LFW.is_dir():
        pytest.skip("no real models and faces: set IRONMASK_SHARED")
    return find_pack(str(SHARED / "models" / "buffalo_sc"))


@pytest.fixture(scope="module")
def contents(pack: ModelPack) -> list[bytes]:
    """Photographs, and what is none among them."""
    people = sorted(LFW.iterdir())[: FILES // 2]
    found = [path.read_bytes() for person in people for path in sorted(person.iterdir())[:2]]
    found[3], found[17], found[-1] = b"no picture", b"", found[5][: len(found[5]) // 2]
    return found


@pytest.fixture(scope="module")
def decoder(pack: ModelPack) -> Iterator[Decoder]:
    made = Decoder(SETTINGS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def one_by_one(pack: ModelPack, contents: list[bytes]) -> list[Any]:
    aligner = FaceAligner(pack, SETTINGS)
    found = [seen(face) for _, face in aligner.align_many(enumerate(contents))]
    aligner.close()
    return found


def seen(face: AlignedFace | ImageError) -> Any:
    if isinstance(face, ImageError):
        return face.reason
    return face.box, face.score, face.sharpness, face.faces, face.crop.tobytes()


def for_batches(pack: ModelPack, path: Path) -> ModelPack:
    """The same detector for many pictures at once: its last shapes keep them apart."""
    model = onnx.load(str(pack.detector))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    made = {name: node for node in model.graph.node for name in node.output}
    for output in model.graph.output:
        node, shape = made[output.name], output.type.tensor_type.shape
        width = shape.dim[1].dim_value
        while node.op_type != "Reshape":
            node = made[node.input[0]]
        for attribute in made[node.input[0]].attribute:
            assert list(attribute.ints) == [2, 3, 0, 1]
            del attribute.ints[:]
            attribute.ints.extend([0, 2, 3, 1])
        name = f"apart {output.name}"
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([0, -1, width], np.int64), name)
        )
        node.input[1] = name
        output.type.CopyFrom(helper.make_tensor_type_proto(1, ["n", "k", width]))
    onnx.save_model(model, str(path))
    return replace(pack, detector=path, detector_sha256=file_digest(path))


class Elsewhere:
    """Answers when it is asked to, and notes the batches in the order they came."""

    def __init__(self, detector: BatchDetector) -> None:
        self.detector = detector
        self.begun: list[tuple[int, int]] = []
        self.waiting = self.most = 0

    def __call__(self, pixels: U8, scales: F64) -> Callable[[], list[Faces]]:
        self.begun.append((len(pixels), pixels.shape[1]))
        self.waiting += 1
        self.most = max(self.most, self.waiting)

        def answer() -> list[Faces]:
            self.waiting -= 1
            return self.detector.detect(pixels, scales)

        return answer


def test_the_same_faces_in_the_same_order(pack, contents, decoder, one_by_one) -> None:
    elsewhere = Elsewhere(BatchDetector(pack, SETTINGS))
    found = list(BatchAligner(SETTINGS, decoder, elsewhere).align_many(enumerate(contents)))
    assert [number for number, _ in found] == list(range(len(contents)))
    assert [seen(face) for _, face in found] == one_by_one
    assert {"not_an_image", "empty_file", "truncated"} <= {
        face.reason for _, face in found if isinstance(face, ImageError)
    }


def test_what_waits_is_bounded(pack, contents, decoder, monkeypatch) -> None:
    elsewhere = Elsewhere(BatchDetector(pack, SETTINGS))
    aligner = BatchAligner(SETTINGS, decoder, elsewhere)
    list(aligner.align_many(enumerate(contents)))
    first = [count for count, size in elsewhere.begun if size == SETTINGS.det_sizes[0]]
    assert sum(first) == len(contents) - 3
    assert max(first) <= batch_aligner._BATCH
    # One batch is decoded while the detector has another one.
    assert elsewhere.most == batch_aligner._AHEAD
    monkeypatch.setattr(batch_aligner, "_BATCH_BYTES", 250 * 250 * 3 * 2)
    elsewhere.begun.clear()
    list(aligner.align_many(enumerate(contents)))
    assert max(count for count, _ in elsewhere.begun) == 2


def test_a_model_for_batches_gives_the_same(pack, contents, decoder, one_by_one, tmp_path) -> None:
    detector = BatchDetector(for_batches(pack, tmp_path / "many.onnx"), SETTINGS)
    assert detector.takes_batches
    assert not BatchDetector(pack, SETTINGS).takes_batches
    faces = BatchAligner(SETTINGS, decoder, Elsewhere(detector)).align_many(enumerate(contents))
    for (_, face), expected in zip(faces, one_by_one, strict=True):
        if isinstance(face, ImageError):
            assert face.reason == expected
        else:
            assert np.allclose(face.box, expected[0], atol=0.05)
            assert face.faces == expected[3]


def test_nothing_is_found_in_nothing(pack) -> None:
    detector = BatchDetector(pack, SETTINGS)
    square = fitted(np.zeros((90, 60, 3), np.uint8), 320)
    assert (square.pixels.shape, square.scale) == ((320, 320, 3), 320 / 90)
    ((found, points),) = detector.detect(square.pixels[None], np.array([square.scale]))
    assert (found.shape, points.shape) == ((0, 5), (0, 5, 2))
    assert detector.detect(square.pixels[None][:0], np.empty(0)) == []
    with pytest.raises(ParameterError):
        detector.detect(square.pixels, np.array([1.0]))
    with pytest.raises(ParameterError):
        detector.detect(square.pixels[None], np.array([1.0, 2.0]))
