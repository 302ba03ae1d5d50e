"""What one enrolment is asked to do, and the fingerprint that a resume must match."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from ironmask.centring import Centring
from ironmask.errors import ParameterError, RiskError
from ironmask.helper import DEFAULT_ENCODING, encoding
from ironmask.params import (
    DEFAULT_PRESET,
    FIRST_VERSION,
    MOST_WIDENING,
    PRESETS,
    Params,
    preset,
)
from pipelines.spec.faces import FaceSettings
from pipelines.spec.outcomes import FAILURES

DEFAULT_SHARD_SIZE: Final = 256
MIN_BITS: Final = 40
# What is refused unless an operator takes it on by name.
RISKS: Final = ("stolen-rows",)
# Stands for every reason to fail.
RETRY_ALL: Final = ("all",)
# Before the name of a model that made stored embeddings, where its files are not at hand.
DECLARED: Final = "declared:"
# Settings that runs of before did not have; unused, they change nothing.
LATER_SETTINGS: Final = ("pseudonymous", "allow_roots", "agreement", "keeps_other_faces")
# Parameters that version 1 of the scheme does not have.
LATER_PARAMS: Final = ("code_width", "structure", "version")
_PACKAGES: Final = ("ironmask", "insightface", "numpy", "onnxruntime", "pillow", "scipy")


class Purpose(StrEnum):
    """What a run makes templates for: for people who have none, or anew for those who have one.

    A repair takes those alone whose template was lost.
    """

    ENROL = "enrol"
    REPAIR = "repair"
    REPROTECT = "reprotect"
    REKEY = "rekey"
    ROTATE_MAC = "rotate-mac"

    @property
    def renews(self) -> bool:
        """Whether a generation is made anew, rather than added to."""
        return self not in (Purpose.ENROL, Purpose.REPAIR)

    @property
    def rewrites(self) -> bool:
        """Whether rows are made from rows, without any image or embedding."""
        return self in (Purpose.REKEY, Purpose.ROTATE_MAC)


class SourceKind(StrEnum):
    """Where the inputs are listed."""

    FOLDER = "folder"
    MANIFEST = "manifest"
    EMBEDDINGS = "embeddings"
    VAULT = "vault"


# Flat, since runs keep it field by field, and a resume compares it so.
@dataclass(frozen=True)
class TemplateJob:
    """Everything that shapes the rows of one enrolment.

    source: address of a folder, a manifest or a Parquet of embeddings. dest: address of the table.
    model: fingerprint of the model pack; for stored embeddings, what the operator declares.
    params: the scheme's parameters; n is the width of the model's embeddings.
    shard_size: inputs in one unit of work and one data file.
    retry: reasons; only inputs that failed before for one of them are taken. Empty: every input.
    sealed: helpers are encrypted. False is a research mode: a stolen row is then a matcher.
    accepted_risk: what the operator takes on by name. filling: share of noise in the directions
    that embeddings leave empty. profile: SHA-256 of the table's profile, which names these.
    renews: the generation whose templates are made anew. more_sources: read after the first one.
    vault: embeddings are kept, encrypted. allow_roots: folders and prefixes that inputs may lie in
    beside the sources' own. pseudonymous: subject ids and addresses are stored keyed.
    agreement: the least cosine of faces of one subject; None where nobody asks whether they are of
    one person. keeps_other_faces: those that are not are counted, and used all the same.
    """

    source: str
    dest: str
    kind: SourceKind
    model: str
    params: Params = field(default_factory=lambda: preset(DEFAULT_PRESET))
    encoding: str = DEFAULT_ENCODING
    centring: Centring = Centring.MEAN
    shard_size: int = DEFAULT_SHARD_SIZE
    sealed: bool = True
    faces: FaceSettings = field(default_factory=FaceSettings)
    generation: int = 1
    retry: tuple[str, ...] = ()
    accepted_risk: str | None = None
    filling: float = 0.0
    profile: str | None = None
    purpose: Purpose = Purpose.ENROL
    renews: int | None = None
    more_sources: tuple[str, ...] = ()
    vault: bool = False
    pseudonymous: bool = False
    allow_roots: tuple[str, ...] = ()
    agreement: float | None = None
    keeps_other_faces: bool = False

    def __post_init__(self) -> None:
        encoding(self.encoding)
        if self.params.bits < MIN_BITS:
            raise ParameterError(
                f"{self.params.describe()} is below the least {MIN_BITS} bits: raise alpha or "
                "lower the tolerance"
            )
        if self.params.code_width > MOST_WIDENING * self.params.n:
            raise ParameterError(
                f"a code of {self.params.code_width} entries for embeddings of width "
                f"{self.params.n} accepts strangers: take one at most {MOST_WIDENING} times as wide"
            )
        known = {*RETRY_ALL, *FAILURES}
        if unknown := sorted(set(self.retry) - known):
            raise ParameterError(
                f"unknown reason to retry {', '.join(unknown)}; the reasons are "
                f"{', '.join(sorted(known))}"
            )
        if self.params.is_wide and not self.sealed:
            raise RiskError(_wide_in_the_clear(self.params, is_new=not self.purpose.renews))
        if self.accepted_risk not in (None, *RISKS):
            raise ParameterError(
                f"unknown risk {self.accepted_risk!r}; what can be accepted is {', '.join(RISKS)}"
            )
        if not 0 <= self.filling < 1:
            raise ParameterError(f"a share of {self.filling} of noise: from 0 to less than 1")
        if self.agreement is not None and not 0 < self.agreement < 1:
            raise ParameterError(
                f"agreement from a cosine of {self.agreement}: it is between 0 and 1"
            )
        if self.shard_size < 1:
            raise ParameterError(f"shard size is {self.shard_size}; it must be at least 1")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the runs table and for people."""
        return asdict(self)

    def describe(self) -> str:
        """The settings in one line, bits included."""
        seal = "encrypted helpers" if self.sealed else "PLAINTEXT helpers"
        seal += f", filled {self.filling:g}" if self.filling else ""
        agree = f", faces agree from {self.agreement:g}" if self.agreement else ""
        first = ", scheme version 1" if self.params.version == FIRST_VERSION else ""
        made = f"{self.encoding}, centring {self.centring}, {seal}{agree}{first}"
        return f"{self.params.describe()}, {made}"

    def traits(self) -> dict[str, Any]:
        """What must be the same for two runs to share one generation of a table."""
        return {
            **self.params.recording(),
            "encoding": encoding(self.encoding).tag,
            "sealed": self.sealed,
            "model": self.model,
            "centring": str(self.centring),
            "filling": self.filling,
            "profile": self.profile,
            "pseudonymous": self.pseudonymous,
        }


def _wide_in_the_clear(params: Params, *, is_new: bool) -> str:
    square = " or ".join(name for name, one in PRESETS.items() if one.widening == 1)
    way_out = "leave --plaintext-helpers out" if is_new else "enrol into a table of encrypted ones"
    return (
        f"refused: a helper from {params.n} to {params.code_width} dimensions may not lie in the "
        "clear, and no risk that is accepted changes that: its codeword is the sparsest vector of "
        f"a known {params.n}-dimensional subspace of R^{params.code_width}, and a search without "
        "any key or face finds it, after some dozen guesses where the code is twice as wide. So "
        f"such a row is worth less than nothing. Choose --preset {square}, or {way_out}"
    )


def stored(fields: dict[str, Any]) -> TemplateJob:
    """A job as the runs table keeps it; undoes `TemplateJob.as_dict`."""
    faces = dict(fields["faces"])
    return TemplateJob(
        **{
            **fields,
            "kind": SourceKind(fields["kind"]),
            "params": Params.recorded(fields["params"]),
            "centring": Centring(fields["centring"]),
            "faces": FaceSettings(**{**faces, "det_sizes": tuple(faces["det_sizes"])}),
            "retry": tuple(fields["retry"]),
            "purpose": Purpose(fields["purpose"]),
            "more_sources": tuple(fields["more_sources"]),
            "allow_roots": tuple(fields.get("allow_roots", ())),
        }
    )


def versions() -> dict[str, str]:
    """Versions of the code that shapes the rows."""
    return {name: _version(name) for name in _PACKAGES}


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # The build for GPUs has a distribution of its own.
        return version(f"{package}-gpu")


def digest(value: object) -> str:
    """SHA-256 in hex over the canonical JSON of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
