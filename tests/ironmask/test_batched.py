"""Batches on an accelerator: the same code on NumPy always, on other libraries where they are."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from scipy.stats import beta, binom, kstest
from support import laws

from ironmask import (
    Params,
    accelerator,
    algebra,
    batched,
    codeword,
    helper,
    protect_batch,
    rotation,
    verify,
)
from ironmask.accelerator import Accelerator
from ironmask.errors import ParameterError, ProtectionError, ProviderError
from ironmask.params import Structure
from ironmask.rotation import Sampler
from ironmask.template import reopen

RARE = 1e-4
SMALL = Params(64, 8, 2)
SHAPES = {
    "real": SMALL,
    "wide": Params(65, 8, 2, 131),
    "quaternionic": Params(64, 8, 2, 64, "quaternionic"),
    "wide quaternionic": Params(68, 8, 2, 132, "quaternionic"),
}
shapes_of = pytest.mark.parametrize("params", SHAPES.values(), ids=SHAPES)


def name_of(params):
    return f"{params.structure}-{params.n}-{params.code_width}"


def opened(library: str) -> Accelerator:
    pytest.importorskip(library)
    xp = import_module(f"array_api_compat.{library}")
    return Accelerator(xp, "cpu" if library != "cupy" else None)


@pytest.fixture(params=["numpy", "torch"])
def on(request) -> Accelerator:
    return opened(request.param)


def unit_rows(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(on, rng, params, k):
    sources = unit_rows(rng.standard_normal((k, params.n)))
    codes = codeword.sample(rng, params.code_width, params.alpha, k)
    return sources, codes, *batched.helpers(on, rng, sources, codes, params)


def drawn_numbers(params):
    return batched.panels(params)[-1].end


@pytest.mark.parametrize(
    "params",
    [
        *(Params(n, 8, 0) for n in (64, 65, 100, 128, 512)),
        *(Params(n, 8, 0, N) for n, N in ((65, 66), (100, 201), (512, 1024))),
        *(Params(n, 8, 0, N, "quaternionic") for n, N in ((64, 64), (132, 132), (100, 200))),
        Params(512, 8, 0, 512, "quaternionic"),
        Params(512, 8, 0, 1024, "quaternionic"),
    ],
    ids=name_of,
)
def test_the_same_matrix_as_one_by_one(params, on, rng, monkeypatch):
    """From the same normals; only the order of additions differs."""
    sampler, width = Sampler.of(params), params.code_width
    drawn = rng.standard_normal((3, drawn_numbers(params))).astype(np.float32)
    first = unit_rows(rng.standard_normal((3, width))).astype(np.float32)
    columns = batched.multiplied(on, on.upload(drawn), on.upload(first), params)
    found = on.download(batched._as_rows(on, columns, params))
    # A source on the first axis needs no reflector, but for a sign.
    source = np.eye(params.n)[0]
    for one, column, normals in zip(found, first, drawn, strict=True):
        monkeypatch.setattr(rotation, "fill_normals", lambda _, out, n=normals: np.copyto(out, n))
        rows = sampler.carrying(rng, source, -column.astype(np.float64)).copy()
        d = params.structure.components
        rows[:, :d] *= -1
        assert np.abs(rows - one).max() < 2e-5


@pytest.mark.parametrize(
    "params",
    [
        *SHAPES.values(),
        Params(100, 12, 0),
        Params(512, 16, 4),
        Params(512, 16, 4, version=1),
        Params(512, 16, 4, 512, "quaternionic"),
        Params(512, 16, 3, 1024, "quaternionic"),
        Params(512, 16, 3, 1024),
    ],
    ids=lambda p: f"{name_of(p)}-v{p.version}",
)
@pytest.mark.parametrize("k", [1, 3])
def test_helpers_carry_their_sources_to_their_codewords(params, k, on, rng):
    sources, codes, encoded, found = made(on, rng, params, k)
    assert np.array_equal(found, codes)
    assert {len(one) for one in encoded} == {helper.nbytes(params, "int8")}
    p = helper.decode(encoded, params, "int8").astype(np.float64)
    assert np.abs(p.transpose(0, 2, 1) @ p - np.eye(params.n)).max() < 0.02
    u = np.einsum("kij,kj->ki", p, sources)
    assert np.abs(u - codeword.dense(codes, params.code_width)).max() < 0.02


@pytest.mark.parametrize("first", ["zero", "alone", "negative"])
@shapes_of
def test_sources_that_could_be_singular(first, params, on, rng):
    d = params.structure.components
    sources = rng.standard_normal((2, params.n))
    sources[:, :d] = {"zero": 0, "alone": 1, "negative": -1}[first]
    if first != "zero":
        sources[:, d:] = 0
    sources = unit_rows(sources)
    codes = codeword.sample(rng, params.code_width, params.alpha, 2)
    codes[0, 0], codes[1, 0] = 1, 5
    encoded, found = batched.helpers(on, rng, sources, codes, params)
    assert np.array_equal(found, codes)
    p = helper.decode(encoded, params, "int8")
    assert np.abs(p.transpose(0, 2, 1) @ p - np.eye(params.n)).max() < 0.06


@shapes_of
def test_bytes_are_those_of_the_encoding(params, on, rng):
    sampler = Sampler.of(params)
    rows = np.stack([sampler.haar(rng) for _ in range(3)])
    sources = unit_rows(rng.standard_normal((3, params.n)))
    encoded, _ = batched._encoded(on, on.upload(rows), sources, params)
    assert encoded == helper.encode(rows, params)


def test_normals_are_normal(on, rng):
    drawn = on.download(batched.normals(on, rng, 3, 100_001)).astype(np.float64)
    assert drawn.shape == (3, 100_001)
    assert kstest(drawn.ravel(), "norm").pvalue > RARE
    halves = drawn[:, :50_000] * drawn[:, 50_001:100_001]
    assert abs(halves.mean()) < 5 * halves.std() / np.sqrt(halves.size)


def test_the_law_of_what_carries(on, rng):
    """Off the codeword, P is a smaller Haar matrix: one coordinate, and the determinant."""
    n, draws = 6, 20_000
    c = np.array([1.0, 0, -1, 0, 0, 1]) / np.sqrt(3)
    m = columns_of(on, Narrow(n, 3, 0, n), c, draws, rng)
    assert np.abs(m[:, :, 0] - c).max() < 1e-5
    law = beta((n - 2) / 2, (n - 2) / 2)
    a = rng.standard_normal(n)
    a = (a - (a @ c) * c) / np.linalg.norm(a - (a @ c) * c)
    for b in np.eye(n)[1:]:
        assert kstest((m @ b @ a + 1) / 2, law.cdf).pvalue > RARE
    negative = int((np.linalg.det(m) < 0).sum())
    assert RARE < binom.cdf(negative, draws, 0.5) < 1 - RARE


class Narrow(Params):
    """Parameters of widths that are too small for templates; the kernel takes them."""

    def __post_init__(self):
        object.__setattr__(self, "structure", Structure(self.structure))


def columns_of(on, params, c, draws, rng):
    """Real matrices of kernels whose first column is c, (draws, N, n)."""
    normals = rng.standard_normal((draws, drawn_numbers(params))).astype(np.float32)
    first = np.broadcast_to(c.astype(np.float32), (draws, len(c))).copy()
    columns = batched.multiplied(on, on.upload(normals), on.upload(first), params)
    rows = on.download(batched._as_rows(on, columns, params))
    return algebra.expanded(rows, params.structure).astype(np.float64)


@pytest.mark.parametrize(
    ("n", "code_width", "structure"),
    [(6, 6, "real"), (5, 8, "real"), (12, 12, "quaternionic"), (8, 12, "quaternionic")],
)
def test_the_law_is_the_samplers(n, code_width, structure, on, rng):
    params = Narrow(n, 3, 0, code_width, structure)
    c = laws.unit(np.where(np.arange(code_width) % 3, 1.0, 0) * (-1) ** np.arange(code_width))
    of = laws.Carried(params.structure, n, code_width, np.eye(n)[0], c)
    draws = columns_of(on, params, c, 10_000, rng)
    assert laws.first_moments(draws, of) < 1
    assert laws.second_moments(draws, of) < 1
    assert laws.coordinates(draws, of, rng) > laws.RARE
    assert laws.stabilised(draws, of, rng) < 1


class TestProtectBatch:
    @pytest.fixture(autouse=True)
    def _device(self, on, monkeypatch):
        monkeypatch.setattr(accelerator, "accelerator", lambda _: on)
        monkeypatch.setattr("ironmask.template._DEVICE_BATCH", 3)

    @pytest.mark.parametrize("k", [0, 1, 3, 7])
    @shapes_of
    def test_rows_verify(self, k, params, rng):
        templates, keys = rng.standard_normal((k, params.n)), [rng.bytes(32) for _ in range(k)]
        rows = protect_batch(templates, params, keys, device="cuda")
        assert len({row.helper for row in rows}) == k
        for row, template, key in zip(rows, templates, keys, strict=True):
            assert verify(row, template, key)
            assert verify(row, template + 0.2 * rng.standard_normal(params.n), key)
            assert not verify(row, rng.standard_normal(params.n), key)
            assert (row.params, row.encoding) == (params, "int8.1")

    @shapes_of
    def test_codewords_are_exact(self, params, rng):
        """A template opens its row to a codeword with all of the row's digests."""
        templates, keys = rng.standard_normal((4, params.n)), [rng.bytes(32) for _ in range(4)]
        rows = protect_batch(templates, params, keys, device="cuda")
        found = [reopen(*of) for of in zip(rows, templates, keys, strict=True)]
        assert all(code is not None for code in found)
        assert len({tuple(code) for code in found}) == 4

    @shapes_of
    def test_a_spoiled_helper_is_caught(self, params, rng, monkeypatch):
        scale = helper.int8_scale
        monkeypatch.setattr(helper, "int8_scale", lambda peak: scale(peak) * np.float16(0.2))
        templates = rng.standard_normal((2, params.n))
        with pytest.raises(ProtectionError, match="does not verify"):
            protect_batch(templates, params, [bytes(32)] * 2, device="cuda")

    def test_other_encodings_are_refused(self, rng):
        with pytest.raises(ParameterError, match="only int8"):
            protect_batch(
                rng.standard_normal((1, 64)), SMALL, [bytes(32)], encoding="bits6", device="cuda"
            )


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cuda:x", "gpu0"])
def test_a_device_that_is_not_here_is_refused(name, rng):
    with pytest.raises(ProviderError, match=name.replace(":", ".")):
        protect_batch(rng.standard_normal((1, 64)), SMALL, [bytes(32)], device=name)
