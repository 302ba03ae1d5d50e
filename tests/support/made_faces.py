"""Aligned faces of people who do not exist, and a model that sees them: for template inversion.

A face is a smooth pattern of a few features. The recogniser is linear, so that faces can be
inverted in seconds, as well as those of a real one in minutes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model
from PIL import Image

from ironmask.arrays import F32, U8
from support.graphs import detector, model
from support.pictures import file_bytes

SIDE, WIDTH = 112, 256
_COARSE, _FEATURES = 7, 24


def write_pack(folder: Path, seed: int = 1) -> Path:
    """A pack whose recogniser sees the coarse pattern of a face. Another seed: another model."""
    folder.mkdir(parents=True)
    detector(folder / "detector.onnx")
    weights = np.random.default_rng(seed).standard_normal((3 * _COARSE**2, WIDTH))
    step = SIDE // _COARSE
    nodes = [
        helper.make_node("Conv", ["x", "window"], ["means"], strides=[step] * 2, group=3),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    graph = model(
        nodes,
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE]),
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "w"),
            numpy_helper.from_array(np.full((3, 1, step, step), step**-2, np.float32), "window"),
        ],
    )
    save_model(graph, str(folder / "recogniser.onnx"))
    names = ("detector.onnx", "recogniser.onnx")
    sums = [f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in names]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    return folder


def names(people: int) -> list[str]:
    """Names of people."""
    return [f"person_{number:03d}" for number in range(people)]


def faces(people: int, each: int, seed: int = 0) -> Iterator[tuple[str, U8]]:
    """Photos by place, `person/photo.jpg`: (112, 112, 3) uint8 RGB, somewhat unlike one another."""
    rng = np.random.default_rng(seed)
    for name in names(people):
        own = rng.standard_normal(_FEATURES)
        for number in range(each):
            photo = own + 0.35 * rng.standard_normal(_FEATURES)
            values = 127.5 + 12 * (photo @ _patterns()).reshape(SIDE, SIDE, 3)
            grain = 3 * rng.standard_normal(values.shape)
            yield f"{name}/{number + 1}.jpg", np.clip(values + grain, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _patterns() -> F32:
    """Smooth patterns, one a feature: (_FEATURES, 112 * 112 * 3)."""
    coarse = np.random.default_rng(7).standard_normal((_FEATURES, _COARSE, _COARSE, 3))
    smooth = [
        [
            np.asarray(Image.fromarray(one[..., channel].astype(np.float32)).resize((SIDE, SIDE)))
            for channel in range(3)
        ]
        for one in coarse
    ]
    return np.stack(smooth).transpose(0, 2, 3, 1).reshape(_FEATURES, -1)


def write_zip(path: Path, people: int = 60, each: int = 3, seed: int = 0) -> Path:
    """All photos in one zip file."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, pixels in faces(people, each, seed):
            archive.writestr(name, file_bytes(Image.fromarray(pixels), "JPEG", quality=95))
    return path


def write_folder(folder: Path, people: int = 60, each: int = 3, seed: int = 0) -> Path:
    """The same photos in a folder tree."""
    for name, pixels in faces(people, each, seed):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file_bytes(Image.fromarray(pixels), "JPEG", quality=95))
    return folder
