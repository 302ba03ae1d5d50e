"""Decoding, alignment and recognition, against generated files and real faces."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.shared import SHARED

from infra.faces.images import decode
from infra.faces.onnx_faces import FaceAligner, FaceRecogniser, choose_face
from infra.models.packs import find_pack
from ironmask.errors import (
    ImageError,
    ModelDigestError,
    ModelNotFoundError,
    ParameterError,
    ProviderError,
)
from pipelines.ports import F32, U8
from pipelines.spec.faces import FaceSettings
from pipelines.spec.outcomes import Reason

LFW = SHARED / "faces" / "lfw_dev"
SETTINGS = FaceSettings()
NAMES = ("Abdullah_Gul", "George_Robertson", "Serena_Williams")


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    smooth = Image.fromarray(values).resize((4, 3)).resize(size, Image.Resampling.BICUBIC)
    return smooth.convert(mode)


def file_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason_of(data: bytes, settings: FaceSettings = SETTINGS) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, settings)
    return caught.value.reason


# decoding


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_formats_decode_to_bgr(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    got = decode(file_bytes(picture(), kind, **options), SETTINGS)
    expected = np.asarray(picture())[:, :, ::-1]
    assert (got.shape, got.dtype) == ((30, 40, 3), np.uint8)
    assert np.abs(got.astype(int) - expected).max() <= (40 if kind == "JPEG" else 0)


def test_the_first_picture_of_an_mpo() -> None:
    data = file_bytes(picture(), "MPO", save_all=True, append_images=[picture().rotate(90)])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert decode(data, SETTINGS).shape == (30, 40, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_modes(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    got = decode(
        file_bytes(picture(mode), kind, **({"quality": 100} if kind == "JPEG" else {})), SETTINGS
    )
    expected = np.asarray(picture(mode).convert("RGB"))[:, :, ::-1]
    assert np.abs(got.astype(int) - expected).max() <= (12 if mode == "CMYK" else 0)


def test_16_bit_grey_is_scaled() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    got = decode(file_bytes(Image.fromarray(ramp), "PNG"), SETTINGS)
    assert np.array_equal(got[:, :, 0], np.arange(256).reshape(16, 16))


def test_transparent_parts_become_white() -> None:
    for image in (Image.new("RGBA", (8, 8), (10, 20, 30, 0)), Image.new("LA", (8, 8), (9, 0))):
        assert (decode(file_bytes(image, "PNG"), SETTINGS) == 255).all()
    keyed = Image.new("RGB", (8, 8), (1, 2, 3))
    assert (decode(file_bytes(keyed, "PNG", transparency=(1, 2, 3)), SETTINGS) == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_all_orientations_give_the_same_pixels(kind: str) -> None:
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = picture(size=(48, 32))
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    if kind == "JPEG":
        options = {"quality": 100, "subsampling": 0}
    for orientation, turn in undo.items():
        stored = upright if turn is None else upright.transpose(turn)
        exif = Image.Exif()
        exif[0x0112] = orientation
        got = decode(file_bytes(stored, kind, exif=exif, **options), SETTINGS)
        assert got.shape == (32, 48, 3), orientation
        difference = np.abs(got.astype(int) - np.asarray(upright)[:, :, ::-1]).max()
        assert difference <= (8 if kind == "JPEG" else 0), orientation


def test_a_damaged_exif_block_does_not_matter() -> None:
    data = file_bytes(picture(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x01")
    assert decode(data, SETTINGS).shape == (30, 40, 3)


def test_an_empty_file() -> None:
    assert reason_of(b"") == Reason.EMPTY_FILE


def test_a_file_of_too_many_bytes() -> None:
    data = file_bytes(picture(), "PNG")
    assert reason_of(data, FaceSettings(max_bytes=len(data) - 1)) == Reason.TOO_LARGE
    assert decode(data, FaceSettings(max_bytes=len(data))).shape == (30, 40, 3)


def test_too_many_pixels_are_seen_before_decoding() -> None:
    assert reason_of(file_bytes(picture(), "PNG"), FaceSettings(max_pixels=1199)) == (
        Reason.TOO_MANY_PIXELS
    )
    for side in (9_000, 60_000):  # above the default, and above what Pillow opens at all
        header = bytearray(file_bytes(Image.new("1", (8, 8)), "BMP"))
        header[18:22] = header[22:26] = side.to_bytes(4, "little")
        assert reason_of(bytes(header)) == Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize("data", [b"hello, this is text", bytes(1000), b"RIFF\0\0\0\0WAVEfmt "])
def test_not_an_image(data: bytes) -> None:
    assert reason_of(data) == Reason.NOT_AN_IMAGE


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("GIF", file_bytes(picture("P"), "GIF")),
        ("TIFF", file_bytes(picture(), "TIFF")),
        ("ICO", file_bytes(picture(), "ICO")),
        ("PPM", file_bytes(picture(), "PPM")),
        ("PSD", b"8BPS\x00\x01" + bytes(40)),
        ("HEIC", b"\x00\x00\x00\x18ftypheic" + bytes(40)),
        ("AVIF", b"\x00\x00\x00\x18ftypavif" + bytes(40)),
        ("SVG", b'<?xml version="1.0"?>\n<svg xmlns="x"></svg>'),
        ("SVG", b"  <svg></svg>"),
    ],
)
def test_formats_that_are_not_allowed_are_named(name: str, data: bytes) -> None:
    with pytest.raises(ImageError, match=name) as caught:
        decode(data, SETTINGS)
    assert caught.value.reason == Reason.FORMAT_NOT_ALLOWED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncated(kind: str, share: float) -> None:
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = file_bytes(image, kind)
    assert reason_of(data[: max(16, int(len(data) * share))]) == Reason.TRUNCATED


def test_damaged_inside() -> None:
    data = bytearray(file_bytes(picture(), "PNG"))
    middle = data.index(b"IDAT") + 20
    data[middle : middle + 20] = bytes(20)
    assert reason_of(bytes(data)) == Reason.DECODE_FAILED


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animated(kind: str) -> None:
    data = file_bytes(picture(), kind, save_all=True, append_images=[picture().rotate(180)])
    assert reason_of(data) == Reason.ANIMATED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "MPO"])
def test_any_damage_ends_in_a_reason_or_in_pixels(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if kind == "BMP" else {"exif": exif}
    data = file_bytes(picture(), kind, **options)
    generator = random.Random(3)
    reasons = set()
    for _ in range(150):
        bad = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            bad[generator.randrange(len(bad))] = generator.randrange(256)
        try:
            pixels = decode(bytes(bad[: generator.randint(1, len(bad))]), SETTINGS)
        except ImageError as error:
            reasons.add(error.reason)
        else:
            assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)
    assert reasons <= set(Reason)


def test_pillow_warns_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = file_bytes(picture(), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(io.BytesIO(data))
        assert decode(data, SETTINGS).shape == (30, 40, 3)


# settings and policies


@pytest.mark.parametrize(
    "bad",
    [
        {"det_sizes": ()},
        {"det_sizes": (300,)},
        {"det_threshold": 0.0},
        {"policy": "best"},
        {"provider": "tpu"},
        {"min_face": float("nan")},
        {"max_pixels": 10**9},
        {"max_bytes": 0},
    ],
)
def test_settings_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        FaceSettings(**bad)


def boxes(*centre_side: tuple[float, float, float]) -> F32:
    return np.array(
        [(x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s in centre_side], np.float32
    )


def test_dominant_prefers_size_and_centre() -> None:
    assert choose_face(boxes((120, 120, 60), (30, 30, 60)), 250, 250, "dominant") == 0
    assert choose_face(boxes((30, 30, 20), (125, 125, 90)), 250, 250, "dominant") == 1


def test_dominant_refuses_a_rival() -> None:
    with pytest.raises(ImageError) as caught:
        choose_face(boxes((85, 125, 70), (165, 125, 66)), 250, 250, "dominant")
    assert caught.value.reason == Reason.SEVERAL_FACES


def test_largest_and_single() -> None:
    two = boxes((120, 120, 60), (30, 30, 70))
    assert choose_face(two, 250, 250, "largest") == 1
    with pytest.raises(ImageError) as caught:
        choose_face(two, 250, 250, "single")
    assert caught.value.reason == Reason.SEVERAL_FACES
    assert choose_face(two[:1], 250, 250, "single") == 0


def test_importing_is_light() -> None:
    code = (
        "import sys, infra.faces.onnx_faces, infra.models.packs\n"
        "heavy = {'cv2', 'onnxruntime', 'insightface', 'onnx', 'PIL', 'ray', 'prefect'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# real models and faces


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    if not LFW.is_dir():
        pytest.skip("no real models and faces: set IRONMASK_SHARED")
    return FaceAligner(find_pack(str(SHARED / "models" / "buffalo_sc")))


@pytest.fixture(scope="module")
def recogniser(aligner: FaceAligner) -> FaceRecogniser:
    return FaceRecogniser(find_pack(str(SHARED / "models" / "buffalo_sc")), batch=4)


@pytest.fixture(scope="module")
def files(aligner: FaceAligner) -> list[Path]:
    return [path for name in NAMES for path in sorted((LFW / name).glob("*.jpg"))[:3]]


@pytest.fixture(scope="module")
def crops(aligner: FaceAligner, files: list[Path]) -> U8:
    return np.stack([aligner.align(path.read_bytes()).crop for path in files])


def cosines(a: F32, b: F32) -> F32:
    products: F32 = (a * b).sum(axis=1)
    return products / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def blurred(path: Path, sigma: float) -> bytes:
    import cv2

    return cv2.imencode(".png", cv2.GaussianBlur(cv2.imread(str(path)), (0, 0), sigma))[1].tobytes()


def test_an_aligned_face(aligner: FaceAligner, files: list[Path]) -> None:
    face = aligner.align(files[0].read_bytes())
    assert (face.crop.shape, face.crop.dtype) == ((112, 112, 3), np.uint8)
    assert face.faces >= 1
    assert 0.5 <= face.score <= 1.0
    assert face.sharpness > SETTINGS.min_sharpness
    assert 24 < min(face.box[2] - face.box[0], face.box[3] - face.box[1]) < 250


def test_people_are_told_apart(recogniser: FaceRecogniser, crops: U8) -> None:
    found = recogniser.embed(crops)
    assert (found.shape, found.dtype, recogniser.n) == ((len(crops), 512), np.float32, 512)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    same = np.repeat(np.arange(len(NAMES)), 3)
    genuine = same[:, None] == same[None, :]
    scores = unit @ unit.T
    assert scores[genuine].min() > 0.291 > scores[~genuine].max()


def test_batches_change_nothing(recogniser: FaceRecogniser, crops: U8) -> None:
    alone = np.concatenate([recogniser.embed(crops[i : i + 1]) for i in range(len(crops))])
    assert recogniser.batch == 4
    assert np.allclose(recogniser.embed(crops), alone, atol=1e-3)
    assert recogniser.embed(crops[:0]).shape == (0, 512)
    with pytest.raises(ParameterError):
        recogniser.embed(crops[0])


def test_the_same_as_insightface(recogniser: FaceRecogniser, files: list[Path]) -> None:
    import cv2
    from insightface.app import FaceAnalysis

    app = FaceAnalysis(name="buffalo_sc", root=str(SHARED), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=0, det_size=(640, 640))
    pack = find_pack(str(SHARED / "models" / "buffalo_sc"))
    ours = FaceAligner(pack, FaceSettings(det_sizes=(640,)))
    stored = np.load(SHARED / "faces" / "lfw_w600k_mbf_embeddings.npz")
    row = {str(path): index for index, path in enumerate(stored["path"])}
    saved = stored["emb"]
    for path in files:
        got = recogniser.embed(ours.align(path.read_bytes()).crop[None])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            faces = app.get(cv2.imread(str(path)))
        expected = max(faces, key=lambda face: float(cosines(face.embedding[None], got)[0]))
        assert cosines(expected.embedding[None], got)[0] > 0.999
        assert cosines(saved[row[f"{path.parent.name}/{path.name}"]][None], got)[0] > 0.999


def test_a_sideways_photograph_is_turned(aligner: FaceAligner, files: list[Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(files[0]).transpose(Image.Transpose.ROTATE_90)
    face = aligner.align(file_bytes(turned, "PNG", exif=exif))
    assert np.array_equal(face.crop, aligner.align(files[0].read_bytes()).crop)


def test_no_face(aligner: FaceAligner) -> None:
    for size in ((200, 200), (5_000, 1), (1, 5_000), (1, 1)):
        with pytest.raises(ImageError) as caught:
            aligner.align(file_bytes(Image.new("RGB", size, (90, 120, 60)), "PNG"))
        assert caught.value.reason == Reason.NO_FACE


def test_a_small_face(aligner: FaceAligner, files: list[Path]) -> None:
    small = Image.open(files[0]).resize((40, 40), Image.Resampling.LANCZOS)
    with pytest.raises(ImageError) as caught:
        aligner.align(file_bytes(small, "PNG"))
    assert caught.value.reason == Reason.FACE_TOO_SMALL


def test_useless_blur_is_refused_mild_blur_is_not(
    aligner: FaceAligner, recogniser: FaceRecogniser, files: list[Path], crops: U8
) -> None:
    for path in files[::3]:
        with pytest.raises(ImageError) as caught:
            aligner.align(blurred(path, 7.0))
        assert caught.value.reason == Reason.FACE_BLURRED
    mild = np.stack([aligner.align(blurred(path, 2.0)).crop for path in files])
    assert cosines(recogniser.embed(mild), recogniser.embed(crops)).min() > 0.6


def test_two_people_side_by_side(aligner: FaceAligner, files: list[Path]) -> None:
    left, right = (Image.open(path).crop((55, 0, 195, 250)) for path in (files[0], files[3]))
    both = Image.new("RGB", (280, 250))
    both.paste(left, (0, 0))
    both.paste(right, (140, 0))
    with pytest.raises(ImageError) as caught:
        aligner.align(file_bytes(both, "PNG"))
    assert caught.value.reason == Reason.SEVERAL_FACES
    pack = find_pack(str(SHARED / "models" / "buffalo_sc"))
    largest = FaceAligner(pack, replace(SETTINGS, policy="largest"))
    assert largest.align(file_bytes(both, "PNG")).faces == 2


def test_a_model_that_takes_one_face_at_a_time(
    aligner: FaceAligner, crops: U8, capfd: pytest.CaptureFixture[str]
) -> None:
    edgeface = FaceRecogniser(find_pack(str(SHARED / "models" / "edgeface_s")))
    assert (edgeface.batch, edgeface.n) == (1, 512)
    found = edgeface.embed(crops)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert float(unit[0] @ unit[1]) > 0.4 > float(unit[0] @ unit[3])
    assert capfd.readouterr() == ("", "")


def test_a_worker_checks_its_own_files(aligner: FaceAligner, tmp_path: Path) -> None:
    pack = find_pack(str(SHARED / "models" / "buffalo_sc"))
    (tmp_path / "other.onnx").write_bytes(b"another model")
    with pytest.raises(ModelDigestError, match="this machine holds another file"):
        FaceAligner(replace(pack, detector=tmp_path / "other.onnx"))
    with pytest.raises(ModelNotFoundError, match="not on this machine"):
        FaceRecogniser(replace(pack, recogniser=tmp_path / "absent.onnx"))


def test_a_gpu_that_is_not_there_is_an_error(aligner: FaceAligner) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has a GPU build of onnxruntime")
    pack = find_pack(str(SHARED / "models" / "buffalo_sc"))
    for provider in ("cuda", "tensorrt"):
        with pytest.raises(ProviderError, match=r"ironmask\[gpu\]"):
            FaceRecogniser(pack, FaceSettings(provider=provider))
