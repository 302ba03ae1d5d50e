"""Re-keying: exact in every encoding, S P gives S c, and P and S P stay linkable."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironmask import Params, codeword, helper, protect, shuffle, verify_batch
from ironmask.attacks.linkage import largest_entry
from ironmask.errors import EncodingError, ParameterError
from ironmask.rotation import Sampler

steady = settings(deadline=None, derandomize=True, database=None, max_examples=60)
NAMES = list(helper.ENCODINGS)
KEY = bytes(range(100, 132))
SHAPES = {
    "version 1": Params(64, 8, 0, version=1),
    "real": Params(64, 8, 0),
    "odd": Params(65, 8, 0),
    "wide": Params(65, 8, 0, 127),
    "quaternionic": Params(100, 8, 0, 100, "quaternionic"),
    "wide quaternionic": Params(64, 8, 0, 132, "quaternionic"),
}
SQUARE, ODD = SHAPES["real"], SHAPES["odd"]
shapes_of = pytest.mark.parametrize("params", SHAPES.values(), ids=SHAPES)


def signed_permutation(key, params):
    """S as a real matrix, (N, N): it moves whole rows of scalars."""
    order, negative = shuffle.signed_order(key, params)
    s = np.zeros((len(order), len(order)), dtype=np.float32)
    s[np.arange(len(order)), order] = np.where(negative, -1, 1)
    return np.kron(s, np.eye(params.structure.components, dtype=np.float32))


def haar(params, seed=3):
    """Stored rows, (r, n)."""
    return Sampler.of(params).haar(np.random.default_rng(seed))


def encoded(name, params):
    return helper.encode(haar(params)[None], params, name)[0]


def decoded(helper_bytes, name, params):
    return helper.decode([helper_bytes], params, name)[0]


@pytest.mark.parametrize("name", NAMES)
@shapes_of
def test_a_shuffled_helper_is_s_p_in_the_same_encoding(name, params):
    before = encoded(name, params)
    after = shuffle.applied(before, params, f"{name}.1", KEY)
    assert len(after) == len(before)
    expected = signed_permutation(KEY, params) @ decoded(before, name, params)
    assert np.array_equal(decoded(after, name, params), expected)


@pytest.mark.parametrize("name", NAMES)
@shapes_of
def test_undone_and_applied_are_inverses(name, params):
    before = encoded(name, params)
    moved = shuffle.applied(before, params, name, KEY)
    assert moved != before
    assert shuffle.undone(moved, params, name, KEY) == before
    assert shuffle.applied(shuffle.undone(before, params, name, KEY), params, name, KEY) == before


@shapes_of
def test_whole_rows_of_quaternions_move(params):
    """The four real rows of a quaternion stay together, in order and of one sign."""
    order, negative = shuffle.signed_order(KEY, params)
    assert len(order) == len(negative) == params.helper_shape[0]
    before = encoded("float32", params)
    after = shuffle.applied(before, params, "float32", KEY)
    d = params.structure.components
    rows, moved = (decoded(h, "float32", params).reshape(-1, d, params.n) for h in (before, after))
    signs = np.where(negative, -1, 1).astype(np.float32)[:, None, None]
    assert np.array_equal(moved, signs * rows[order])


@steady
@given(
    st.sampled_from(NAMES),
    st.sampled_from(list(SHAPES)),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**32 - 1),
)
def test_any_bytes_come_back_or_are_refused(name, shape, key, seed):
    """Whatever a helper holds, it never comes back changed."""
    params = SHAPES[shape]
    noise = np.random.default_rng(seed).bytes(helper.nbytes(params, name))
    try:
        after = shuffle.applied(noise, params, name, key)
    except EncodingError:
        return
    assert shuffle.undone(after, params, name, key) == noise


@pytest.mark.parametrize(("name", "dtype"), [("float32", "<f4"), ("float16", "<f2")])
def test_zeros_keep_their_signs(name, dtype):
    p = np.zeros((65, 65), dtype=dtype)
    p[::2, ::3] = -0.0
    p[1, 1] = np.finfo(dtype).smallest_subnormal
    before = p.tobytes()
    after = shuffle.applied(before, ODD, name, KEY)
    order, negative = shuffle.signed_order(KEY, ODD)
    signs = np.signbit(np.frombuffer(after, dtype).reshape(65, 65))
    assert np.array_equal(signs, np.signbit(p[order]) ^ negative[:, None])
    assert shuffle.undone(after, ODD, name, KEY) == before


@pytest.mark.parametrize(("name", "bits"), [("bits6", 6), ("bits5", 5), ("bits4", 4)])
@shapes_of
def test_opposite_levels_add_up_to_all_bits(name, bits, params):
    before, (r, n) = encoded(name, params), params.helper_shape

    def levels(data):
        spread = np.unpackbits(np.frombuffer(data, np.uint8), count=r * n * bits)
        return spread.reshape(r, n, bits) @ (1 << np.arange(bits)[::-1])

    order, negative = shuffle.signed_order(KEY, params)
    after = levels(shuffle.applied(before, params, name, KEY))
    moved = levels(before)[order]
    half = 1 << (bits - 1)
    assert np.array_equal(after, np.where(negative[:, None], 2 * half - 1 - moved, moved))


@shapes_of
def test_rows_of_int8_take_their_scales_along(params):
    rows, _ = params.helper_shape
    p = haar(params) * np.linspace(0.1, 1, rows, dtype=np.float32)[:, None]
    before = helper.encode(p[None], params, "int8")[0]
    after = shuffle.applied(before, params, "int8", KEY)
    order, _ = shuffle.signed_order(KEY, params)
    scales = [np.frombuffer(data, "<f2", count=rows) for data in (before, after)]
    assert np.array_equal(scales[1], scales[0][order])


@pytest.mark.parametrize("place", [0, 2079, 64 * 64 - 1])
def test_the_level_that_has_no_opposite_is_refused(place):
    bad = bytearray(encoded("int8", SQUARE))
    bad[128 + place] = 0x80
    for move in (shuffle.applied, shuffle.undone):
        with pytest.raises(EncodingError, match="below -127"):
            move(bytes(bad), SQUARE, "int8", KEY)


@pytest.mark.parametrize("name", ["bits5"])
def test_bits_after_the_end_are_refused(name):
    bad = bytearray(encoded(name, ODD))
    bad[-1] |= 1
    with pytest.raises(EncodingError, match="after its end"):
        shuffle.applied(bytes(bad), ODD, name, KEY)


@pytest.mark.parametrize(
    ("name", "infinite"),
    [("float32", b"\0\0\x80\x7f"), ("float16", b"\0\x7c"), ("int8", b"\0\xfc")],
)
def test_values_that_are_not_finite_are_refused(name, infinite):
    bad = infinite + encoded(name, SQUARE)[len(infinite) :]
    with pytest.raises(EncodingError, match="not finite"):
        shuffle.applied(bad, SQUARE, name, KEY)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
@shapes_of
def test_wrong_lengths_are_refused(name, change, params):
    for move in (shuffle.applied, shuffle.undone):
        with pytest.raises(EncodingError, match=f"helper of n {params.n}.* has"):
            move(change(encoded(name, params)), params, name, KEY)


def test_unknown_encodings_and_other_versions_are_refused():
    with pytest.raises(ParameterError, match="unknown encoding"):
        shuffle.applied(b"", SQUARE, "int7", KEY)
    with pytest.raises(EncodingError, match="version"):
        shuffle.applied(encoded("int8", SQUARE), SQUARE, "int8.2", KEY)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_keys_have_32_bytes(size):
    for move in (shuffle.applied, shuffle.undone):
        with pytest.raises(ParameterError, match="32 bytes"):
            move(encoded("int8", SQUARE), SQUARE, "int8", b"k" * size)


@pytest.mark.parametrize("name", NAMES)
@shapes_of
def test_a_shuffled_row_gives_the_shuffled_codeword(name, params, rng, row_key):
    t, width = rng.standard_normal(params.n), params.code_width
    row = protect(t, params, row_key, encoding=name, rng=rng)
    code = codeword.decode(decoded(row.helper, name, params) @ t, 8)
    after = shuffle.applied(row.helper, params, row.encoding, KEY)
    expected = signed_permutation(KEY, params) @ codeword.dense(code, width)[0]
    found = codeword.decode(decoded(after, name, params) @ t, 8)
    assert np.allclose(codeword.dense(found, width)[0], expected)


@shapes_of
def test_a_row_verifies_once_its_shuffle_is_undone(params, rng, row_key):
    params, n = dataclasses.replace(params, tolerance=2), params.n
    t = rng.standard_normal(n)
    row = protect(t, params, row_key, rng=rng)
    probes = t + np.linspace(0.5, 4, 40)[:, None] * rng.standard_normal((40, n))
    moved = shuffle.applied(row.helper, params, row.encoding, KEY)
    back = dataclasses.replace(row, helper=shuffle.undone(moved, params, row.encoding, KEY))
    expected = verify_batch(row, probes, row_key)
    assert np.array_equal(verify_batch(back, probes, row_key), expected)
    assert 0 < expected.sum() < 40
    assert not verify_batch(dataclasses.replace(row, helper=moved), probes, row_key).any()
    wrong = shuffle.undone(moved, params, row.encoding, bytes(32))
    assert not verify_batch(dataclasses.replace(row, helper=wrong), probes, row_key).any()


def test_whoever_sees_both_helpers_links_them_and_has_the_shuffle():
    """Rows agree up to order and sign, in int8 too; those of two issues do not."""
    params = Params(128, 8, 0)
    before = encoded("int8", params)
    after = shuffle.applied(before, params, "int8", KEY)
    p1, p2 = (decoded(h, "int8", params) for h in (before, after))
    fresh = haar(params, seed=4)
    assert largest_entry(np.stack([p1, p2])) > 0.99
    assert largest_entry(np.stack([p1, fresh])) < 0.6
    assert np.array_equal(np.rint(p2 @ p1.T), signed_permutation(KEY, params))


@pytest.mark.parametrize(
    "params",
    [*SHAPES.values(), Params(512, 16, 4), Params(512, 16, 3, 1024, "quaternionic")],
    ids=[*SHAPES, "full", "full quaternionic"],
)
def test_signed_order_is_that_of_the_documented_stream(params):
    r = params.helper_shape[0]
    domain = b"ironmask shuffle" + struct.pack("<2I", params.version, r)
    stream = hashlib.shake_256(domain + KEY).digest(8 * r + (r + 7) // 8)
    draws = struct.unpack(f"<{r}Q", stream[: 8 * r])
    order, negative = shuffle.signed_order(KEY, params)
    assert order.tolist() == sorted(range(r), key=lambda i: (draws[i], i))
    bits = "".join(f"{byte:08b}" for byte in stream[8 * r :])[:r]
    assert negative.tolist() == [bit == "1" for bit in bits]


def test_stored_shuffles_stay_what_they_are():
    order, negative = shuffle.signed_order(KEY, Params(64, 8, 0, version=1))
    assert order[:8].tolist() == [25, 6, 2, 62, 49, 11, 32, 27]
    assert np.packbits(negative).tobytes().hex() == "619f62b5dc4252a4"


def test_shuffles_match_the_vectors(vectors):
    for v in vectors("shuffles"):
        params = Params.recorded({"alpha": 8, "tolerance": 0, **v})
        order, negative = shuffle.signed_order(bytes.fromhex(v["key"]), params)
        assert order.tolist() == v["order"]
        assert negative.tolist() == [bool(flag) for flag in v["negative"]]


@pytest.mark.parametrize("n", [64, 512])
def test_keys_widths_and_versions_separate(n):
    params = Params(n, 8, 0)
    order, negative = shuffle.signed_order(KEY, params)
    assert np.array_equal(np.sort(order), np.arange(n))
    changed = bytes([KEY[0] ^ 1]) + KEY[1:]
    other, signs = shuffle.signed_order(changed, params)
    assert (order == other).sum() < 12
    assert 0.3 < (negative == signs).mean() < 0.7
    for else_where in (Params(n + 1, 8, 0), Params(n, 8, 0, version=1)):
        found, _ = shuffle.signed_order(KEY, else_where)
        assert (order == found[:n]).sum() < 12


def test_order_and_signs_are_uniform():
    """Over many keys each row goes everywhere, and half of them change sign."""
    params = Params(64, 8, 0, structure="quaternionic")
    keys = [struct.pack("<4Q", *[i] * 4) for i in range(4000)]
    drawn = [shuffle.signed_order(key, params) for key in keys]
    counts = np.zeros((16, 16))
    for order, _ in drawn:
        counts[np.arange(16), order] += 1
    assert np.abs(counts - 250).max() < 75
    signs = np.array([negative for _, negative in drawn])
    assert np.abs(signs.mean(axis=0) - 0.5).max() < 0.04
