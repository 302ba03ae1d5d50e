"""Digests: the tolerance is exact, keys and parameters separate, lengths are checked."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest

from ironmask import codeword, digest
from ironmask.errors import EncodingError, ParameterError, ProtectionError
from ironmask.params import Params

OTHER_KEY = b"\xff" * 32
SETTINGS = [Params(64, 6, e, version=v) for v in (1, 2) for e in range(6)]
named = {"ids": lambda p: f"tolerance {p.tolerance}, version {p.version}"}


def flip(code, places):
    """Another sign at the given places."""
    changed = code.copy()
    changed[list(places)] *= -1
    return changed


def move(code, places, n=64):
    """An unused index at the given places, sorted by index again."""
    free = [j for j in range(1, n + 1) if j not in np.abs(code)]
    changed = code.copy()
    for spare, place in enumerate(places):
        changed[place] = np.sign(code[place]) * free[spare * 7]
    return changed[np.argsort(np.abs(changed))]


def flip_and_move(code, places):
    half = len(places) // 2
    return move(flip(code, places[:half]), places[half:])


def matches(stored, code, params, row_key):
    """With the subsets of one codeword, as a probe that decodes to it is tried at least."""
    index = digest._subset_index(params.alpha, params.match_size)
    return digest.matches(stored, code[index], params, row_key)


@pytest.fixture
def code(rng):
    return codeword.sample(rng, 64, 6)[0]


@pytest.mark.parametrize("params", SETTINGS, **named)
@pytest.mark.parametrize("change", [flip, move, flip_and_move])
def test_accepts_exactly_up_to_the_tolerance(params, change, code, row_key):
    stored = digest.digests(code, params, row_key)
    for wrong in range(7):
        for places in combinations(range(6), wrong):
            probe = change(code, places)
            assert codeword.agreement(code, probe)[0] == 6 - wrong
            assert matches(stored, probe, params, row_key) is (wrong <= params.tolerance)


@pytest.mark.parametrize("wrong", range(17))
@pytest.mark.parametrize("change", [flip, move])
def test_balanced_preset_accepts_four_wrong_places(wrong, change, rng, row_key):
    params = Params(64, 16, 4)
    code = codeword.sample(rng, 64, 16)[0]
    stored = digest.digests(code, params, row_key)
    places = np.sort(rng.choice(16, wrong, replace=False))
    probe = flip(code, places) if change is flip else crowded_move(code, places)
    assert matches(stored, probe, params, row_key) is (wrong <= 4)


def crowded_move(code, places, n=64):
    free = [j for j in range(1, n + 1) if j not in np.abs(code)]
    changed = code.copy()
    changed[places] = free[: len(places)]
    return changed[np.argsort(np.abs(changed))]


@pytest.mark.parametrize("params", SETTINGS, **named)
def test_another_row_key_never_matches(params, code, row_key):
    stored = digest.digests(code, params, row_key)
    assert not matches(stored, code, params, OTHER_KEY)
    for bit in (0, 100, 255):
        changed = bytearray(row_key)
        changed[bit // 8] ^= 1 << (bit % 8)
        assert not matches(stored, code, params, bytes(changed))


@pytest.mark.parametrize("params", SETTINGS, **named)
def test_lengths(params, code, row_key):
    stored = digest.digests(code, params, row_key)
    first = 16 if params.tolerance else 32
    width = {1: first, 2: 8}[params.version]
    assert digest.tag_bytes(params) == width
    assert len(stored) == digest.digest_bytes(params) == params.digest_count * width


@pytest.mark.parametrize("params", [Params(64, 6, 0), Params(64, 6, 2)])
@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
def test_stored_tags_of_a_wrong_length_are_refused(params, change, code, row_key):
    stored = digest.digests(code, params, row_key)
    with pytest.raises(EncodingError, match="digest bytes"):
        matches(change(stored), code, params, row_key)


def test_tags_of_another_tolerance_are_refused(code, row_key):
    stored = digest.digests(code, Params(64, 6, 1), row_key)
    with pytest.raises(EncodingError):
        matches(stored, code, Params(64, 6, 2), row_key)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 63, 65])
def test_row_keys_of_a_wrong_length_are_refused(size, code, row_key):
    params = Params(64, 6, 1)
    stored = digest.digests(code, params, row_key)
    with pytest.raises(ParameterError, match="32 bytes"):
        digest.digests(code, params, b"k" * size)
    with pytest.raises(ParameterError, match="32 bytes"):
        matches(stored, code, params, b"k" * size)


def split(stored, width):
    return [stored[i : i + width] for i in range(0, len(stored), width)]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("params", [Params(64, 6, 3), Params(512, 16, 4)])
def test_tags_are_sorted_and_distinct(params, version, rng, row_key):
    params = replace(params, version=version)
    code = codeword.sample(rng, params.n, params.alpha)[0]
    tags = split(digest.digests(code, params, row_key), digest.tag_bytes(params))
    assert tags == sorted(set(tags))


def test_sorted_order_hides_the_subsets(rng, row_key):
    """The tag that two codewords share has no tendency to lie at the same place."""
    params = Params(64, 6, 1)
    places = []
    for _ in range(200):
        code = codeword.sample(rng, 64, 6)[0]
        here = split(digest.digests(code, params, row_key), 8)
        there = set(split(digest.digests(flip(code, [0]), params, row_key), 8))
        places += [i for i, tag in enumerate(here) if tag in there]
    counts = np.bincount(places, minlength=6)
    assert counts.sum() == 200
    assert counts.min() > 10


@pytest.mark.parametrize("version", [1, 2])
def test_parameters_separate_domains(version, code, row_key):
    """Equal bytes to digest, other parameters: no tag in common."""
    shape = Params(64, 6, 1, version=version)
    width = digest.tag_bytes(shape)
    tags = set(split(digest.digests(code, shape, row_key), width))
    others = [replace(shape, n=65, code_width=65), replace(shape, alpha=5, tolerance=0)]
    if version > 1:
        others += [replace(shape, code_width=65), replace(shape, structure="quaternionic")]
    for other in others:
        parts = digest.digests(code[:5] if other.alpha == 5 else code, other, row_key)
        assert tags.isdisjoint(split(parts, width))
    whole = digest.digests(code, replace(shape, tolerance=0), row_key)
    assert whole != digest.digests(code, Params(65, 6, 0, version=version), row_key)


@pytest.mark.parametrize("version", [1, 2])
def test_subsets_of_another_tolerance_or_alpha_share_no_tag(version, code, row_key):
    """Subsets of four of six and of four of five places have the same bytes."""
    wide, narrow = (Params(64, a, t, version=version) for a, t in ((6, 2), (5, 1)))
    width = digest.tag_bytes(wide)
    six = split(digest.digests(code, wide, row_key), width)
    five = split(digest.digests(code[:5], narrow, row_key), width)
    assert set(six).isdisjoint(five)


@pytest.mark.parametrize("tolerance", [0, 2])
def test_scheme_version_separates_domains(tolerance, code, row_key):
    """No tag of version 2 is the beginning of one of version 1."""
    first, second = (
        split(digest.digests(code, params, row_key), digest.tag_bytes(params))
        for params in (Params(64, 6, tolerance, version=v) for v in (1, 2))
    )
    assert {tag[:8] for tag in first}.isdisjoint(second)


def test_digests_match_the_vectors(vectors):
    for v in chain(vectors("digests"), vectors("digests_v2")):
        params = Params.recorded(v)
        assert params.version == v.get("version", 1)
        code = np.array(v["codeword"], dtype=np.int32)
        stored = digest.digests(code, params, bytes.fromhex(v["key"]))
        assert params.digest_count == v["tags"]
        assert stored[: digest.tag_bytes(params)].hex() == v["first_tag"]
        assert hashlib.sha256(stored).hexdigest() == v["sha256_of_all"]
        assert matches(stored, code, params, bytes.fromhex(v["key"]))


def test_layers_match_the_vectors(vectors):
    for v in vectors("digests_v2"):
        params, key, layer = Params.recorded(v), *map(bytes.fromhex, (v["key"], v["layer"]))
        code = np.array(v["codeword"], dtype=np.int32)
        above = digest.relayered(digest.digests(code, params, key), params, layer)
        assert hashlib.sha256(above).hexdigest() == v["sha256_under_the_layer"]
        assert above == digest.digests(code, params, key + layer)


def test_digests_do_not_hold_the_codeword(rng, row_key):
    code = codeword.sample(rng, 512, 16)[0]
    stored = digest.digests(code, Params(), row_key)
    assert codeword.canonical_bytes(code[:2], 512) not in stored


@pytest.mark.parametrize("e", [1, 4])
def test_tags_of_two_codewords_are_disjoint(e, rng, row_key):
    """Two codewords with fewer places in common than the match size share nothing."""
    params = Params(512, 16, e)
    a, b = codeword.sample(rng, 512, 16, 2)
    shared = set(split(digest.digests(a, params, row_key), 8)) & set(
        split(digest.digests(b, params, row_key), 8)
    )
    assert not shared


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tag", [b"\0" * 16, b"anything at all!"])
def test_repeated_stored_tags_match_nothing(tag, version, code, rng, row_key):
    """A tampered row must not open for everyone."""
    params = Params(64, 6, 2, version=version)
    tag = tag[: digest.tag_bytes(params)]
    with pytest.raises(EncodingError, match="repeat"):
        matches(tag * params.digest_count, code, params, row_key)


@pytest.mark.parametrize("version", [1, 2])
def test_unsorted_stored_tags_are_refused(version, code, row_key):
    params = Params(64, 6, 2, version=version)
    stored, width = digest.digests(code, params, row_key), digest.tag_bytes(params)
    with pytest.raises(EncodingError, match="not sorted"):
        matches(stored[width:] + stored[:width], code, params, row_key)


@pytest.mark.parametrize("version", [1, 2])
def test_one_stored_tag_is_enough(version, code, row_key):
    """A hit on any single tag counts, wherever it lies among foreign ones."""
    params = Params(64, 6, 1, version=version)
    width = digest.tag_bytes(params)
    tags = split(digest.digests(code, params, row_key), width)
    for place, tag in enumerate(tags):
        foreign = [bytes([i]) * width for i in range(6)]
        foreign[place] = tag
        assert matches(b"".join(sorted(foreign)), code, params, row_key)


@pytest.mark.parametrize("version", [1, 2])
def test_half_a_tag_is_not_enough(version, code, row_key):
    params = Params(64, 6, 1, version=version)
    half = digest.tag_bytes(params) // 2
    tags = split(digest.digests(code, params, row_key), 2 * half)
    first = b"".join(sorted(tag[:half] + bytes([i] * half) for i, tag in enumerate(tags)))
    last = b"".join(sorted(bytes([i] * half) + tag[half:] for i, tag in enumerate(tags)))
    assert not matches(first, code, params, row_key)
    assert not matches(last, code, params, row_key)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("place", range(6))
def test_a_tag_is_found_among_foreign_ones_that_begin_alike(place, version, code, row_key):
    params = Params(64, 6, 1, version=version)
    half = digest.tag_bytes(params) // 2
    tag = split(digest.digests(code, params, row_key), 2 * half)[0]
    stored = [tag[:half] + bytes([i]) * half for i in range(6)]
    stored[place] = tag
    assert matches(b"".join(sorted(stored)), code, params, row_key)


def test_tags_that_begin_alike_are_sorted_too(monkeypatch):
    tags = [b"a" * 8 + bytes([last] * 8) for last in (3, 255, 0, 128)] + [b"\xff" * 16, bytes(16)]
    array = np.frombuffer(b"".join(tags), dtype=np.uint8).reshape(-1, 16)
    monkeypatch.setattr(digest, "_tags", lambda *_: array)
    params = Params(64, 4, 1, version=1)
    joined = digest.digests(np.arange(1, 5, dtype=np.int32), params, bytes(32))
    assert joined == b"".join(sorted(tags))


@pytest.mark.parametrize("version", [1, 2])
def test_a_row_with_two_equal_tags_is_not_made(monkeypatch, version):
    """It would read as damaged. No key is known that gives one, so equal tags are put in."""
    params = Params(64, 4, 1, version=version)
    tags = np.arange(4 * digest.tag_bytes(params), dtype=np.uint8).reshape(4, -1)
    tags[2] = tags[0]
    monkeypatch.setattr(digest, "_tags", lambda *_: tags)
    with pytest.raises(ProtectionError, match="equal"):
        digest.digests(np.arange(1, 5, dtype=np.int32), params, bytes(32))
