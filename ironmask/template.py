"""The safe recipe: an embedding becomes a protected template, a probe gets one yes or no."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ironmask import candidates, codeword, digest, helper, rotation
from ironmask.arrays import F32, F64, I32, single, unit_rows
from ironmask.errors import EncodingError, ParameterError, ProtectionError
from ironmask.filling import Filling
from ironmask.params import Params
from ironmask.random import secure_generator

# Matrices on a device at once: at n = 512 they take some hundred MiB of its memory.
_DEVICE_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class ProtectedTemplate:
    """The result of `protect`. Encrypt the helper before you store it.

    helper: P in the named encoding. digests: tags of the codeword, see `ironmask.digest`.
    """

    params: Params
    encoding: str
    helper: bytes = field(repr=False)
    digests: bytes = field(repr=False)


def row_bytes(params: Params, encoding: str) -> int:
    """Bytes of a helper in an encoding, before encryption, and of its digests."""
    return helper.nbytes(params, encoding) + digest.digest_bytes(params)


def protect(
    template: ArrayLike,
    params: Params,
    row_key: bytes,
    *,
    encoding: str = helper.DEFAULT_ENCODING,
    filling: Filling | None = None,
    rng: np.random.Generator | None = None,
) -> ProtectedTemplate:
    """Protect one template, (n,) of any scale; see `protect_batch`."""
    keys = [row_key]
    return protect_batch(
        single(template), params, keys, encoding=encoding, filling=filling, rng=rng
    )[0]


def protect_batch(
    templates: ArrayLike,
    params: Params,
    row_keys: Sequence[bytes],
    *,
    encoding: str = helper.DEFAULT_ENCODING,
    filling: Filling | None = None,
    rng: np.random.Generator | None = None,
    device: str = "cpu",
) -> list[ProtectedTemplate]:
    """Protect k templates, (k, n) of any scale, each under its own row key (`digest.digests`).

    filling: noise to mix in, in directions that embeddings leave empty; see `ironmask.filling`.
    rng: for tests; by default a new secure generator. device: `cpu`, or `cuda` for batches on a
    GPU, in int8. Raises as `Protector.protect` does, and `ProviderError` where the device is
    absent.
    """
    unit = unit_rows(templates, params.n)
    if len(unit) != len(row_keys):
        raise ParameterError(f"{len(unit)} templates need as many row keys, got {len(row_keys)}")
    rng = rng or secure_generator()
    if device != "cpu":
        filled = unit if filling is None else filling.filled(unit, rng)
        return _on_device(filled, params, row_keys, encoding, rng, device)
    with Protector(params, encoding, filling, rng) as protector:
        return [protector.protect(t, key) for t, key in zip(unit, row_keys, strict=True)]


def _on_device(
    unit: F64,
    params: Params,
    row_keys: Sequence[bytes],
    encoding: str,
    rng: np.random.Generator,
    device: str,
) -> list[ProtectedTemplate]:
    from ironmask import batched
    from ironmask.accelerator import accelerator

    tag = helper.encoding(encoding).tag
    if tag != helper.encoding("int8").tag:
        raise ParameterError(f"encoding {encoding} is not made on device {device}, only int8 is")
    on = accelerator(device)
    made = []
    for start in range(0, len(unit), _DEVICE_BATCH):
        part = slice(start, start + _DEVICE_BATCH)
        codes = codeword.sample(rng, params.code_width, params.alpha, len(unit[part]))
        encoded, found = batched.helpers(on, rng, unit[part], codes, params)
        if not np.array_equal(found, codes):
            raise _not_verified(params, encoding)
        rows = zip(encoded, codes, row_keys[part], strict=True)
        made += [
            ProtectedTemplate(params, tag, h, digest.digests(c, params, key)) for h, c, key in rows
        ]
    return made


def _not_verified(params: Params, encoding: str) -> ProtectionError:
    return ProtectionError(
        f"a row of {params.describe()} in encoding {encoding} does not verify after encoding; use "
        "an encoding with more bits"
    )


class Protector:
    """Protects one template after another, in memory that is used again and wiped at the end.

    rng: for tests; by default a new secure generator. Threads must not share a protector.
    """

    def __init__(
        self,
        params: Params,
        encoding: str = helper.DEFAULT_ENCODING,
        filling: Filling | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._params = params
        self._encoding = encoding
        self._filling = filling
        self._tag = helper.encoding(encoding).tag
        self._rng = secure_generator() if rng is None else rng
        self._sampler = rotation.Sampler.of(params)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._sampler.wipe()

    def protect(self, template: ArrayLike, row_key: bytes) -> ProtectedTemplate:
        """Protect one template, (n,) of any scale, under its own row key (`digest.digests`).

        The template is filled where the protector fills. It gets a fresh codeword c, and a fresh
        random isometry P among those that carry it to c. The encoded row is opened again and must
        give c back. Only the encoded P and the digests leave.

        Raises `TemplateError` for a vector that cannot be a template, `ProtectionError` where an
        encoded row does not give its codeword back.
        """
        params = self._params
        batch = unit_rows(single(template), params.n)
        if self._filling is not None:
            batch = self._filling.filled(batch, self._rng)
        (unit,) = batch
        code = codeword.sample(self._rng, params.code_width, params.alpha)
        (target,) = codeword.dense(code, params.code_width)
        rows = self._sampler.carrying(self._rng, unit, target)
        encoded = helper.encode(rows[None], params, self._encoding, overwrite=True)[0]
        found = _reopened(encoded, unit, params, self._encoding)
        if found is None or not np.array_equal(found, code):
            raise _not_verified(params, self._encoding)
        tags = digest.digests(code[0], params, row_key)
        return ProtectedTemplate(params, self._tag, encoded, tags)


def _reopened(encoded: bytes, template: F64, params: Params, encoding: str) -> I32 | None:
    """The codeword that an encoded helper gives for its template, (1, alpha); None if damaged."""
    try:
        return _decoded(encoded, template, params, encoding)
    except EncodingError:
        return None


def _decoded(encoded: bytes, template: F64, params: Params, encoding: str) -> I32:
    u = helper.project(encoded, params, encoding, template.astype(np.float32)[None])
    return codeword.decode(u, params.alpha)


def reopen(protected: ProtectedTemplate, template: ArrayLike, row_key: bytes) -> I32 | None:
    """The codeword of a row, (alpha,) int32, for an evaluator who holds the row's template.

    template: (n,) of any scale, centred as at enrolment. Returns None where the row's digests do
    not confirm the codeword. Raises `EncodingError` for a damaged row.
    """
    params = protected.params
    (unit,) = unit_rows(single(template), params.n)
    (code,) = _decoded(protected.helper, unit, params, protected.encoding)
    return code if confirms(protected, code, row_key) else None


def confirms(protected: ProtectedTemplate, code: I32, row_key: bytes) -> bool:
    """Tell whether a row has the digests of a codeword, (alpha,)."""
    own = digest.digests(code, protected.params, row_key)
    return hmac.compare_digest(own, protected.digests)


def matrix(protected: ProtectedTemplate) -> F32:
    """The helper of a row, (N, n) float32. Raises `EncodingError` for a damaged row."""
    found: F32 = helper.decode([protected.helper], protected.params, protected.encoding)[0]
    return found


def verify(protected: ProtectedTemplate, probe: ArrayLike, row_key: bytes) -> bool:
    """Tell whether a probe, (n,) of any scale, matches; see `verify_batch`."""
    return bool(verify_batch(protected, single(probe), row_key)[0])


def verify_batch(
    protected: ProtectedTemplate, probes: ArrayLike, row_key: bytes
) -> NDArray[np.bool_]:
    """Tell for k probes, (k, n) of any scale, whether each matches one row: (k,) bool.

    u = P t' is tried as the subsets of `candidates.subsets`. All their tags are compared with those
    of the row, whatever the outcome. The answer is binary by design: no score leaves.

    Raises `TemplateError` for vectors that cannot be probes, `EncodingError` for a damaged row.
    """
    params, stored = protected.params, protected.digests
    return np.array([digest.matches(stored, t, params, row_key) for t in tried(protected, probes)])


def tried(protected: ProtectedTemplate, probes: ArrayLike) -> Iterator[I32]:
    """The signed subsets that each of k probes, (k, n) of any scale, is tried as: (count, m) int32.

    They are as secret as the codeword where a probe matches. Raises as `verify_batch` does.
    """
    params = protected.params
    unit = unit_rows(probes, params.n).astype(np.float32)
    projected = helper.project(protected.helper, params, protected.encoding, unit)
    return (candidates.subsets(u, params) for u in projected)
