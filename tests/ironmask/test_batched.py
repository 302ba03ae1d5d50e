"""Batches on an accelerator: the same code on NumPy always, on other libraries where they are."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from scipy.stats import beta, binom, kstest

from ironmask import Params, accelerator, batched, codeword, helper, protect_batch, rotation, verify
from ironmask.accelerator import Accelerator
from ironmask.errors import ParameterError, ProtectionError, ProviderError

RARE = 1e-4
SMALL = Params(64, 8, 2)


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
    codes = codeword.sample(rng, params.n, params.alpha, k)
    return sources, codes, *batched.helpers(on, rng, sources, codes)


@pytest.mark.parametrize("n", [64, 65, 100, 128, 512])
def test_the_same_matrix_as_one_by_one(n, on, rng, monkeypatch):
    """From the same normals; only the order of additions differs."""
    sampler = rotation.Sampler(n)
    count = sum(w * (n - start) for start, w in batched._panels(n))
    drawn = rng.standard_normal((3, count)).astype(np.float32)
    first = unit_rows(rng.standard_normal((3, n))).astype(np.float32)
    found = on.download(batched.multiplied(on, on.upload(drawn), on.upload(first)))
    for one, column, normals in zip(found, first, drawn, strict=True):
        monkeypatch.setattr(rotation, "fill_normals", lambda _, out, n=normals: np.copyto(out, n))
        assert np.abs(sampler._multiplied(rng, column) - one).max() < 2e-5


@pytest.mark.parametrize("params", [SMALL, Params(100, 12, 0), Params(512, 16, 4)])
@pytest.mark.parametrize("k", [1, 3])
def test_helpers_carry_their_sources_to_their_codewords(params, k, on, rng):
    sources, codes, encoded, found = made(on, rng, params, k)
    assert np.array_equal(found, codes)
    p = helper.decode(encoded, "int8", params.n).astype(np.float64)
    assert np.abs(p @ p.transpose(0, 2, 1) - np.eye(params.n)).max() < 0.02
    u = np.einsum("kij,kj->ki", p, sources)
    assert np.abs(u - codeword.dense(codes, params.n)).max() < 0.02


def test_bytes_are_those_of_the_encoding(on, rng):
    p = np.stack([rotation.haar(rng, 64) for _ in range(3)])
    encoded, _ = batched._encoded(on, on.upload(p), unit_rows(rng.standard_normal((3, 64))), 8)
    assert encoded == helper.encode(p)


def test_normals_are_normal(on, rng):
    drawn = on.download(batched.normals(on, rng, 3, 100_001)).astype(np.float64)
    assert drawn.shape == (3, 100_001)
    assert kstest(drawn.ravel(), "norm").pvalue > RARE
    halves = drawn[:, :50_000] * drawn[:, 50_001:100_001]
    assert abs(halves.mean()) < 5 * halves.std() / np.sqrt(halves.size)


def test_the_law_of_what_carries(on, rng):
    """Off the codeword, P is a smaller Haar matrix: one coordinate, and the determinant."""
    n, draws = 6, 20_000
    s, c = unit_rows(rng.standard_normal((1, n)))[0], np.array([1.0, 0, -1, 0, 0, 1]) / np.sqrt(3)
    count = sum(w * (n - start) for start, w in batched._panels(n))
    drawn = on.upload(rng.standard_normal((draws, count)).astype(np.float32))
    first = np.broadcast_to(c.astype(np.float32), (draws, n)).copy()
    m = on.download(batched.multiplied(on, drawn, on.upload(first))).astype(np.float64)
    assert np.abs(m[:, :, 0] - c).max() < 1e-5
    law = beta((n - 2) / 2, (n - 2) / 2)
    a = rng.standard_normal(n)
    a = (a - (a @ c) * c) / np.linalg.norm(a - (a @ c) * c)
    for b in np.eye(n)[1:]:
        assert kstest((m @ b @ a + 1) / 2, law.cdf).pvalue > RARE
    negative = int((np.linalg.det(m) < 0).sum())
    assert RARE < binom.cdf(negative, draws, 0.5) < 1 - RARE
    assert abs(s @ s - 1) < 1e-12


class TestProtectBatch:
    @pytest.fixture(autouse=True)
    def _device(self, on, monkeypatch):
        monkeypatch.setattr(accelerator, "accelerator", lambda _: on)
        monkeypatch.setattr("ironmask.template._DEVICE_BATCH", 3)

    @pytest.mark.parametrize("k", [0, 1, 3, 7])
    def test_rows_verify(self, k, rng):
        templates, keys = rng.standard_normal((k, 64)), [rng.bytes(32) for _ in range(k)]
        rows = protect_batch(templates, SMALL, keys, device="cuda")
        assert len({row.helper for row in rows}) == k
        for row, template, key in zip(rows, templates, keys, strict=True):
            assert verify(row, template, key)
            assert not verify(row, rng.standard_normal(64), key)
            assert row.encoding == "int8.1"

    def test_a_spoiled_helper_is_caught(self, rng, monkeypatch):
        scale = helper.int8_scale
        monkeypatch.setattr(helper, "int8_scale", lambda peak: scale(peak) * np.float16(0.2))
        with pytest.raises(ProtectionError, match="does not verify"):
            protect_batch(rng.standard_normal((2, 64)), SMALL, [bytes(32)] * 2, device="cuda")

    def test_other_encodings_are_refused(self, rng):
        with pytest.raises(ParameterError, match="only int8"):
            protect_batch(
                rng.standard_normal((1, 64)), SMALL, [bytes(32)], encoding="bits6", device="cuda"
            )


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cuda:x", "gpu0"])
def test_a_device_that_is_not_here_is_refused(name, rng):
    with pytest.raises(ProviderError, match=name.replace(":", ".")):
        protect_batch(rng.standard_normal((1, 64)), SMALL, [bytes(32)], device=name)
