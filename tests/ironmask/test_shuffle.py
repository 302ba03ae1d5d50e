"""Re-keying: exact in every encoding, S P gives S c, and P and S P stay linkable."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironmask import Params, codeword, helper, protect, rotation, shuffle, verify_batch
from ironmask.attacks.linkage import largest_entry
from ironmask.errors import EncodingError, ParameterError

steady = settings(deadline=None, derandomize=True, database=None, max_examples=60)
NAMES = list(helper.ENCODINGS)
WIDTHS = [1, 2, 3, 5, 64, 65, 100, 127]
KEY = bytes(range(100, 132))


def signed_permutation(key, n):
    order, negative = shuffle.signed_order(key, n)
    s = np.zeros((n, n), dtype=np.float32)
    s[np.arange(n), order] = np.where(negative, -1, 1)
    return s


def haar(n, seed=3):
    if n == 1:
        return np.ones((1, 1), dtype=np.float32)
    return rotation.haar(np.random.default_rng(seed), n)


def encoded(name, n):
    return helper.encode(haar(n)[None], name)[0]


def decoded(helper_bytes, name, n):
    return helper.decode([helper_bytes], name, n)[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", WIDTHS)
def test_a_shuffled_helper_is_s_p_in_the_same_encoding(name, n):
    before = encoded(name, n)
    after = shuffle.applied(before, f"{name}.1", n, KEY)
    assert len(after) == len(before)
    expected = signed_permutation(KEY, n) @ decoded(before, name, n)
    assert np.array_equal(decoded(after, name, n), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", WIDTHS)
def test_undone_and_applied_are_inverses(name, n):
    before = encoded(name, n)
    assert shuffle.undone(shuffle.applied(before, name, n, KEY), name, n, KEY) == before
    assert shuffle.applied(shuffle.undone(before, name, n, KEY), name, n, KEY) == before


@steady
@given(st.sampled_from(NAMES), st.integers(1, 40), st.binary(min_size=32, max_size=32), st.data())
def test_any_bytes_come_back_or_are_refused(name, n, key, data):
    """Whatever a helper holds, it never comes back changed."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    noise = np.random.default_rng(seed).bytes(helper.encoding(name).nbytes(n))
    try:
        after = shuffle.applied(noise, name, n, key)
    except EncodingError:
        return
    assert shuffle.undone(after, name, n, key) == noise


@pytest.mark.parametrize(("name", "dtype"), [("float32", "<f4"), ("float16", "<f2")])
def test_zeros_keep_their_signs(name, dtype):
    p = np.zeros((65, 65), dtype=dtype)
    p[::2, ::3] = -0.0
    p[1, 1] = np.finfo(dtype).smallest_subnormal
    before = p.tobytes()
    after = shuffle.applied(before, name, 65, KEY)
    order, negative = shuffle.signed_order(KEY, 65)
    signs = np.signbit(np.frombuffer(after, dtype).reshape(65, 65))
    assert np.array_equal(signs, np.signbit(p[order]) ^ negative[:, None])
    assert shuffle.undone(after, name, 65, KEY) == before


@pytest.mark.parametrize(("name", "bits"), [("bits6", 6), ("bits5", 5), ("bits4", 4)])
@pytest.mark.parametrize("n", [5, 65])
def test_opposite_levels_add_up_to_all_bits(name, bits, n):
    before = encoded(name, n)

    def levels(data):
        spread = np.unpackbits(np.frombuffer(data, np.uint8), count=n * n * bits)
        return spread.reshape(n, n, bits) @ (1 << np.arange(bits)[::-1])

    order, negative = shuffle.signed_order(KEY, n)
    after = levels(shuffle.applied(before, name, n, KEY))
    moved = levels(before)[order]
    half = 1 << (bits - 1)
    assert np.array_equal(after, np.where(negative[:, None], 2 * half - 1 - moved, moved))


def test_rows_of_int8_take_their_scales_along():
    p = haar(64) * np.linspace(0.1, 1, 64, dtype=np.float32)[:, None]
    before = helper.encode(p[None], "int8")[0]
    after = shuffle.applied(before, "int8", 64, KEY)
    order, _ = shuffle.signed_order(KEY, 64)
    scales = [np.frombuffer(data, "<f2", count=64) for data in (before, after)]
    assert np.array_equal(scales[1], scales[0][order])


@pytest.mark.parametrize("place", [0, 2079, 64 * 64 - 1])
def test_the_level_that_has_no_opposite_is_refused(place):
    bad = bytearray(encoded("int8", 64))
    bad[128 + place] = 0x80
    for move in (shuffle.applied, shuffle.undone):
        with pytest.raises(EncodingError, match="below -127"):
            move(bytes(bad), "int8", 64, KEY)


@pytest.mark.parametrize("name", ["bits5"])
def test_bits_after_the_end_are_refused(name):
    bad = bytearray(encoded(name, 65))
    bad[-1] |= 1
    with pytest.raises(EncodingError, match="after its end"):
        shuffle.applied(bytes(bad), name, 65, KEY)


@pytest.mark.parametrize(
    ("name", "infinite"),
    [("float32", b"\0\0\x80\x7f"), ("float16", b"\0\x7c"), ("int8", b"\0\xfc")],
)
def test_values_that_are_not_finite_are_refused(name, infinite):
    bad = infinite + encoded(name, 64)[len(infinite) :]
    with pytest.raises(EncodingError, match="not finite"):
        shuffle.applied(bad, name, 64, KEY)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
def test_wrong_lengths_are_refused(name, change):
    for move in (shuffle.applied, shuffle.undone):
        with pytest.raises(EncodingError, match="of width 64 has"):
            move(change(encoded(name, 64)), name, 64, KEY)


def test_unknown_encodings_and_other_versions_are_refused():
    with pytest.raises(ParameterError, match="unknown encoding"):
        shuffle.applied(b"", "int7", 64, KEY)
    with pytest.raises(EncodingError, match="version"):
        shuffle.applied(encoded("int8", 64), "int8.2", 64, KEY)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_keys_have_32_bytes(size):
    for move in (shuffle.applied, shuffle.undone):
        with pytest.raises(ParameterError, match="32 bytes"):
            move(encoded("int8", 64), "int8", 64, b"k" * size)


@pytest.mark.parametrize("name", NAMES)
def test_a_shuffled_row_gives_the_shuffled_codeword(name, rng, row_key):
    n, params = 128, Params(128, 8, 0)
    t = rng.standard_normal(n)
    row = protect(t, params, row_key, encoding=name, rng=rng)
    code = codeword.decode(decoded(row.helper, name, n) @ t, 8)
    after = shuffle.applied(row.helper, row.encoding, n, KEY)
    expected = signed_permutation(KEY, n) @ codeword.dense(code, n)[0]
    found = codeword.decode(decoded(after, name, n) @ t, 8)
    assert np.allclose(codeword.dense(found, n)[0], expected)


def test_a_row_verifies_once_its_shuffle_is_undone(rng, row_key):
    params = Params(64, 8, 2)
    t = rng.standard_normal(64)
    row = protect(t, params, row_key, rng=rng)
    probes = t + np.linspace(0.5, 4, 40)[:, None] * rng.standard_normal((40, 64))
    moved = shuffle.applied(row.helper, row.encoding, 64, KEY)
    back = dataclasses.replace(row, helper=shuffle.undone(moved, row.encoding, 64, KEY))
    expected = verify_batch(row, probes, row_key)
    assert np.array_equal(verify_batch(back, probes, row_key), expected)
    assert 0 < expected.sum() < 40
    assert not verify_batch(dataclasses.replace(row, helper=moved), probes, row_key).any()
    wrong = shuffle.undone(moved, row.encoding, 64, bytes(32))
    assert not verify_batch(dataclasses.replace(row, helper=wrong), probes, row_key).any()


def test_whoever_sees_both_helpers_links_them_and_has_the_shuffle():
    """Rows agree up to order and sign, in int8 too; those of two issues do not."""
    n = 128
    before = encoded("int8", n)
    p1, p2 = (decoded(h, "int8", n) for h in (before, shuffle.applied(before, "int8", n, KEY)))
    fresh = haar(n, seed=4)
    assert largest_entry(np.stack([p1, p2])) > 0.99
    assert largest_entry(np.stack([p1, fresh])) < 0.6
    assert np.array_equal(np.rint(p2 @ p1.T), signed_permutation(KEY, n))


@pytest.mark.parametrize("n", [1, 2, 64, 65, 512])
def test_signed_order_is_that_of_the_documented_stream(n):
    domain = b"ironmask shuffle" + struct.pack("<2I", 1, n)
    stream = hashlib.shake_256(domain + KEY).digest(8 * n + (n + 7) // 8)
    draws = struct.unpack(f"<{n}Q", stream[: 8 * n])
    order, negative = shuffle.signed_order(KEY, n)
    assert order.tolist() == sorted(range(n), key=lambda i: (draws[i], i))
    bits = "".join(f"{byte:08b}" for byte in stream[8 * n :])[:n]
    assert negative.tolist() == [bit == "1" for bit in bits]


def test_stored_shuffles_stay_what_they_are():
    order, negative = shuffle.signed_order(KEY, 64)
    assert order[:8].tolist() == [25, 6, 2, 62, 49, 11, 32, 27]
    assert np.packbits(negative).tobytes().hex() == "619f62b5dc4252a4"


@pytest.mark.parametrize("n", [64, 512])
def test_keys_and_widths_separate(n):
    order, negative = shuffle.signed_order(KEY, n)
    assert np.array_equal(np.sort(order), np.arange(n))
    changed = bytes([KEY[0] ^ 1]) + KEY[1:]
    other, signs = shuffle.signed_order(changed, n)
    assert (order == other).sum() < 12
    assert 0.3 < (negative == signs).mean() < 0.7
    wider, _ = shuffle.signed_order(KEY, n + 1)
    assert (order == wider[:n]).sum() < 12


def test_order_and_signs_are_uniform():
    """Over many keys each row goes everywhere, and half of them change sign."""
    drawn = [shuffle.signed_order(struct.pack("<4Q", *[i] * 4), 8) for i in range(2000)]
    counts = np.zeros((8, 8))
    for order, _ in drawn:
        counts[np.arange(8), order] += 1
    assert np.abs(counts - 250).max() < 75
    signs = np.array([negative for _, negative in drawn])
    assert np.abs(signs.mean(axis=0) - 0.5).max() < 0.06
