"""Layered row keys: a row comes under a new key without its codeword, and under that key alone."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given, settings
from hypothesis import strategies as st

from ironmask import Params, ProtectedTemplate, codeword, digest, protect, verify
from ironmask.errors import EncodingError, ParameterError
from ironmask.template import reopen

steady = settings(deadline=None, derandomize=True, database=None, max_examples=60)
SETTINGS = [
    *(Params(64, 6, e, version=v) for v in (1, 2) for e in (0, 2, 5)),
    Params(512, 16, 4, version=1),
    Params(512, 16, 3, 1024, "quaternionic"),
]
SECOND, THIRD = b"\x02" * 32, b"\x03" * 32
settings_of = pytest.mark.parametrize(
    "params", SETTINGS, ids=lambda p: f"{p.alpha}-{p.tolerance}-v{p.version}"
)
keys = st.binary(min_size=32, max_size=32)


def split(stored, params):
    width = digest.tag_bytes(params)
    return [stored[i : i + width] for i in range(0, len(stored), width)]


@pytest.fixture(
    params=[Params(64, 8, 2, version=1), Params(64, 8, 2), Params(64, 8, 2, 128, "quaternionic")],
    ids=["version 1", "real", "wide quaternionic"],
)
def row(request, rng, row_key) -> tuple[ProtectedTemplate, np.ndarray]:
    t = rng.standard_normal(64)
    return protect(t, request.param, row_key, rng=rng), t


def under(row: ProtectedTemplate, *layer_keys: bytes) -> ProtectedTemplate:
    for key in layer_keys:
        tags = digest.relayered(row.digests, row.params, key)
        row = dataclasses.replace(row, digests=tags)
    return row


@steady
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.data(), keys, st.lists(keys, max_size=3))
def test_relayered_tags_are_those_of_the_longer_key(seed, alpha, data, first, further):
    version = data.draw(st.sampled_from([1, 2]))
    params = Params(64, alpha, data.draw(st.integers(0, alpha - 1)), version=version)
    code = codeword.sample(np.random.default_rng(seed), 64, alpha)[0]
    stored, whole = digest.digests(code, params, first), first
    for key in further:
        stored, whole = digest.relayered(stored, params, key), whole + key
        assert stored == digest.digests(code, params, whole)


@settings_of
def test_a_layer_is_the_keyed_tag_of_a_tag(params, rng, row_key):
    code = codeword.sample(rng, params.code_width, params.alpha)[0]
    stored = digest.digests(code, params, row_key)
    expected = sorted(above(tag, params) for tag in split(stored, params))
    assert digest.relayered(stored, params, SECOND) == b"".join(expected)


def above(tag, params):
    """A tag under the second key, by other means."""
    person = b"ironmask layer\0\0"
    if params.version == 1:
        salt = struct.pack("<4I", 1, params.n, params.alpha, params.tolerance)
        size = len(tag)
        return hashlib.blake2b(SECOND + tag, digest_size=size, salt=salt, person=person).digest()
    scalars = {"real": 1, "quaternionic": 4}[params.structure]
    numbers = (2, scalars, params.alpha, params.tolerance, params.n, params.code_width, 0)
    salt = struct.pack("<4B3I", *numbers)
    code = CMAC(AES(hashlib.blake2b(key=SECOND, digest_size=32, salt=salt, person=person).digest()))
    code.update(tag)
    return code.finalize()[:8]


def test_layered_tags_stay_what_they_are():
    code = np.array([-3, 7, 20, -64], dtype=np.int32)
    tags = digest.digests(code, Params(64, 4, 1, version=1), bytes(range(96)))
    assert hashlib.sha256(tags).hexdigest() == (
        "b801419042435e849aea249a20e58046c3227e87cec8a6067a1a2ca8b7118db2"
    )


@settings_of
def test_layers_hide_the_tags_below(params, rng, row_key):
    code = codeword.sample(rng, params.code_width, params.alpha)[0]
    stored = digest.digests(code, params, row_key)
    above = digest.relayered(stored, params, SECOND)
    assert len(above) == len(stored)
    assert set(split(above, params)).isdisjoint(split(stored, params))
    assert above != digest.relayered(stored, params, THIRD)


@settings_of
def test_a_layer_is_no_first_key(params, rng, row_key):
    """Keys of the same bytes at another depth give other tags."""
    code = codeword.sample(rng, params.code_width, params.alpha)[0]
    found = [
        digest.digests(code, params, key)
        for key in (row_key, SECOND, row_key + SECOND, SECOND + row_key, row_key + SECOND + SECOND)
    ]
    assert len(set(found)) == 5


def test_a_row_verifies_under_all_of_its_layers_alone(row, row_key):
    plain, t = row
    twice = under(plain, SECOND, THIRD)
    assert verify(twice, t, row_key + SECOND + THIRD)
    wrong = (row_key, row_key + SECOND, row_key + THIRD + SECOND, THIRD, SECOND + THIRD + row_key)
    for key in wrong:
        assert not verify(twice, t, key)
    assert not verify(plain, t, row_key + SECOND)
    assert not verify(twice, -t, row_key + SECOND + THIRD)


def test_decisions_stay_the_same(row, row_key, rng):
    plain, t = row
    probes = [t + size * rng.standard_normal(64) for size in np.linspace(0.5, 4, 40)]
    layered = under(plain, SECOND)
    answers = [verify(layered, probe, row_key + SECOND) for probe in probes]
    assert answers == [verify(plain, probe, row_key) for probe in probes]
    assert 0 < sum(answers) < 40


def test_protect_and_reopen_take_layered_keys(row, row_key, rng):
    plain, t = row
    key = row_key + SECOND
    code = reopen(plain, t, row_key)
    assert np.array_equal(reopen(under(plain, SECOND), t, key), code)
    assert reopen(under(plain, SECOND), t, row_key) is None
    made = protect(t, plain.params, key, rng=rng)
    assert verify(made, t, key)
    assert not verify(made, t, row_key)
    assert verify(under(made, THIRD), t, key + THIRD)


@settings_of
def test_hits_are_the_subsets_that_have_a_tag(params, rng, row_key):
    code = codeword.sample(rng, params.code_width, params.alpha)[0]
    m = params.match_size
    tried = codeword.sample(rng, params.code_width, m, 50)
    genuine = [10, 30]
    tried[genuine] = [code[:m], code[-m:] if params.tolerance else -code[:m]]
    found = digest.hits(digest.digests(code, params, row_key), tried, params, row_key)
    assert found.dtype == np.bool_
    right = np.isin(tried, code).all(axis=1)
    assert np.array_equal(found, right)
    assert right[10]


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_layer_keys_have_32_bytes(size, rng, row_key):
    params = Params(64, 6, 1)
    stored = digest.digests(codeword.sample(rng, 64, 6)[0], params, row_key)
    with pytest.raises(ParameterError, match="32 bytes"):
        digest.relayered(stored, params, b"k" * size)


@pytest.mark.parametrize("params", [Params(64, 6, 0), Params(64, 6, 2)])
def test_damaged_tags_get_no_layer(params, rng, row_key):
    stored = digest.digests(codeword.sample(rng, 64, 6)[0], params, row_key)
    for bad in (stored[:-1], stored + stored, b""):
        with pytest.raises(EncodingError, match="digest bytes"):
            digest.relayered(bad, params, SECOND)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("change", [lambda b: b[16:] + b[:16], lambda b: b[: len(b) // 15] * 15])
def test_unsorted_or_repeated_tags_get_no_layer(change, version, rng, row_key):
    params = Params(64, 6, 2, version=version)
    stored = digest.digests(codeword.sample(rng, 64, 6)[0], params, row_key)
    with pytest.raises(EncodingError, match="not sorted, or repeat"):
        digest.relayered(change(stored), params, SECOND)


def test_layers_of_a_key():
    assert digest.layers(bytes(32) + SECOND) == [bytes(32), SECOND]
