"""The options of the verbs, by their flat names: what each verb takes as keywords."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ironmask.errors import ParameterError
from pipelines.spec.faces import FacePolicy, Provider


class PlaceOptions(TypedDict, total=False):
    """Where the work is done: fields of `Workplace`."""

    executor: str
    workers: int | None
    ray_address: str | None


class CrewOptions(PlaceOptions, total=False):
    """The same, for work with models."""

    embedders: int | None
    gpu_fraction: float


class KeyOptions(TypedDict, total=False):
    """Paths of keyset files: fields of `KeyFiles`."""

    keys: str | None
    vault_keys: str | None


class TemplateOptions(TypedDict, total=False):
    """How templates are made, and what a stolen row may be worth: fields of `TemplateSettings`,
    `Goal` and `Risk`.
    """

    preset: str | None
    alpha: int | None
    tolerance: int | None
    code_width: int | None
    structure: str | None
    encoding: str | None
    centring: str | None
    filling: float | None
    shard_size: int | None
    agreement: float | None
    fmr: float | None
    photos: int | None
    floor_bits: float | None
    calibration: str | None
    accepted_risk: str | None


class FaceOptions(TypedDict, total=False):
    """How pictures and faces are accepted: fields of `FaceSettings`."""

    det_sizes: Sequence[int]
    det_threshold: float
    policy: FacePolicy
    min_face: float
    min_sharpness: float
    min_norm: float
    max_pixels: int
    max_bytes: int


class EnrolOptions(CrewOptions, KeyOptions, TemplateOptions, FaceOptions, total=False):
    """What `enroll` takes beside its source and destination: see `EnrolRequest` and its parts."""

    model: str | None
    provider: Provider
    kek: str | None
    kind: str
    allow_roots: Sequence[str]
    retry: Sequence[str]
    plaintext_helpers: bool
    vault: bool
    pseudonymous: bool
    restart: bool


class RewriteOptions(PlaceOptions, total=False):
    """What `rekey` and `rotate_mac` take beside their destination."""

    keys: str | None
    restart: bool


class ReprotectOptions(CrewOptions, KeyOptions, TemplateOptions, total=False):
    """What `reprotect` takes beside its destination: see `ReprotectRequest` and its parts."""

    source: Sequence[str]
    vault: bool
    allow_roots: Sequence[str]
    model: str | None
    provider: Provider | None
    max_lost: int
    refuse_disagreement: bool
    restart: bool


class RepairOptions(CrewOptions, KeyOptions, total=False):
    """What `repair` takes beside its destination and source: see `RepairRequest`."""

    model: str | None
    provider: Provider | None
    allow_roots: Sequence[str]
    restart: bool


class EvaluateOptions(PlaceOptions, total=False):
    """What `evaluate` takes beside its source and output: see `EvaluateRequest`."""

    table: str | None
    keys: str | None
    model: str | None
    protocols: Sequence[str]
    settings: Sequence[str]
    alphas: Sequence[int]
    tolerance: int
    encodings: Sequence[str]
    centrings: Sequence[str]
    exclude: str | None
    groups: Sequence[str]
    seed: str | None


class AuditOptions(PlaceOptions, total=False):
    """What `audit` takes beside its tables, source and output: see `AuditRequest`."""

    keys: Sequence[str]
    sample: int
    pairs: int
    seconds: float


class InvertFitOptions(PlaceOptions, total=False):
    """What `invert_fit` takes beside its faces and output: see `InvertFitRequest`."""

    inverter: str
    model: str | None
    most: int
    images: int
    cpu_seconds: float
    seed: int
    exclude: str | None
    device: str


class InvertEvaluateOptions(PlaceOptions, total=False):
    """What `invert_evaluate` takes beside faces, output and inverters: see
    `InvertEvaluateRequest`.
    """

    model: str | None
    other_model: str | None
    table: str | None
    keys: str | None
    people: int
    each: int
    seed: int
    exclude: str | None
    contact_sheet: bool


def refuse_others(options: Mapping[str, object], kind: type) -> None:
    """Raise `ParameterError` for an option that a verb does not have, though its request does."""
    known = kind.__annotations__
    if unknown := sorted(set(options) - set(known)):
        raise ParameterError(
            f"no option {', '.join(unknown)} here; the options are {', '.join(sorted(known))}"
        )
