"""Helper encodings: lengths, round trips, versions, refusals, and stored bytes."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironmask import Params, helper
from ironmask.errors import EncodingError, ParameterError
from ironmask.helper import Shape
from ironmask.rotation import Sampler

steady = settings(deadline=None, derandomize=True, database=None, max_examples=40)
LENGTHS_AT_512 = {
    "float32": 1_048_576,
    "float16": 524_288,
    "int8": 263_168,
    "bits6": 196_608,
    "bits5": 163_840,
    "bits4": 131_072,
}
NAMES = list(LENGTHS_AT_512)
STEPS = {"bits6": 0.1041, "bits5": 0.1881, "bits4": 0.3352}
# alpha and tolerance do not count for a helper.
SHAPES = {
    "real": Params(64, 8, 0),
    "odd": Params(65, 8, 0),
    "wide": Params(65, 8, 0, 130),
    "quaternionic": Params(64, 8, 0, 64, "quaternionic"),
    "wide quaternionic": Params(68, 8, 0, 132, "quaternionic"),
}
SQUARE, ODD = SHAPES["real"], SHAPES["odd"]
FULL = Params(512, 16, 4)
shapes_of = pytest.mark.parametrize("params", SHAPES.values(), ids=SHAPES)


@pytest.fixture(scope="module")
def p512():
    return drawn(np.random.default_rng(3), FULL)[0]


def drawn(rng, params, k=1):
    """Stored rows of k helpers, (k, r, n)."""
    sampler = Sampler.of(params)
    return np.stack([sampler.haar(rng) for _ in range(k)])


def round_trip(rows, name, params=None):
    """Rows, (k, r, n), as the encoding gives them back."""
    of = helper.shape(params) if params else Shape(*rows.shape[1:], rows.shape[1])
    found = helper.encoding(name)
    return found.from_bytes(found.to_bytes(rows.copy(), of), of)


def spiky(n):
    """A signed permutation: every row has one entry of size one."""
    return (np.eye(n, dtype=np.float32)[::-1] * np.where(np.arange(n) % 2, -1, 1)).astype("f4")


def test_encodings_are_the_documented_six():
    assert list(helper.ENCODINGS) == NAMES
    assert helper.DEFAULT_ENCODING == "int8"


@pytest.mark.parametrize("name", NAMES)
def test_lengths_at_512(name, p512):
    assert helper.nbytes(FULL, name) == LENGTHS_AT_512[name]
    assert len(helper.encode(p512[None], FULL, name)[0]) == LENGTHS_AT_512[name]


@pytest.mark.parametrize("name", NAMES)
@shapes_of
def test_lengths_of_other_shapes(name, params, rng):
    encoded = helper.encode(drawn(rng, params), params, name)[0]
    assert len(encoded) == helper.nbytes(params, name)
    assert helper.decode([encoded], params, name).shape == (1, params.code_width, params.n)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code_width", [512, 1024, 1536])
def test_a_quaternionic_helper_takes_a_quarter(name, code_width):
    real, quarter = (
        helper.nbytes(Params(512, 16, 4, code_width, s), name) for s in ("real", "quaternionic")
    )
    assert real == 4 * quarter


def test_default_is_int8(p512):
    assert helper.encode(p512[None], FULL) == helper.encode(p512[None], FULL, "int8")


def test_float32_is_exact(p512):
    assert np.array_equal(round_trip(p512[None], "float32")[0], p512)


def test_float16_error_is_half_a_unit_in_the_last_place(p512):
    error = np.abs(round_trip(p512[None], "float16")[0] - p512)
    assert (error <= np.abs(p512) * 2.0**-11 + 2.0**-25).all()


@pytest.mark.parametrize("params", [*SHAPES.values(), FULL], ids=[*SHAPES, "full"])
def test_int8_error_is_half_a_level_of_the_row(params, rng):
    (p,) = drawn(rng, params)
    level = np.abs(p).max(axis=1, keepdims=True) / 127
    error = np.abs(round_trip(p[None], "int8", params)[0] - p)
    # The scale is rounded up by at most one and a half units in its last place of ten bits.
    assert (error <= level * (0.5 * (1 + 1.5 * 2.0**-10) + 1e-5)).all()
    assert error.max() > 0


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("params", [*SHAPES.values(), FULL], ids=[*SHAPES, "full"])
def test_packed_error_is_half_a_step_inside_the_range(name, params, rng):
    (p,) = drawn(rng, params)
    step = STEPS[name] / np.sqrt(params.code_width)
    reach = step * 2 ** (int(name[-1]) - 1)
    decoded = round_trip(p[None], name, params)[0]
    inside = np.abs(p) <= reach
    assert (np.abs(decoded - p)[inside] <= step / 2 * (1 + 1e-4)).all()
    assert decoded[~inside] == pytest.approx(np.sign(p[~inside]) * (reach - step / 2), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("bits6", 0.0009, 0.0012), ("bits5", 0.0033, 0.0037), ("bits4", 0.0111, 0.0120)],
)
@pytest.mark.parametrize(
    "params",
    [FULL, Params(512, 16, 3, 1024), Params(512, 16, 3, 1024, "quaternionic")],
    ids=lambda p: f"{p.structure}-{p.code_width}",
)
def test_packed_distortion_is_that_of_the_best_uniform_quantiser(name, least, most, params, rng):
    """Share of the variance: 0.01154 at 4 bits, 0.00349 at 5 (Max 1960), 0.00104 at 6."""
    (p,) = drawn(rng, params)
    error = round_trip(p[None], name, params)[0] - p
    assert least < params.code_width * np.mean(error**2) < most


@pytest.mark.parametrize("name", NAMES)
def test_encoding_what_was_decoded_changes_nothing_more(name, rng):
    once = round_trip(drawn(rng, SQUARE), name)
    assert np.abs(round_trip(once, name) - once).max() < 2e-3


@pytest.mark.parametrize("name", ["float32", "float16", "bits6", "bits5", "bits4"])
@shapes_of
def test_encoding_is_idempotent(name, params, rng):
    rows = drawn(rng, params)
    once = helper.encode(rows, params, name)
    assert helper.encode(round_trip(rows, name, params), params, name) == once


@pytest.mark.parametrize("name", NAMES)
@shapes_of
def test_batch_equals_singles(name, params, rng):
    p = drawn(rng, params, 3)
    encoded = helper.encode(p, params, name)
    assert encoded == [helper.encode(one[None], params, name)[0] for one in p]
    singles = np.concatenate([helper.decode([e], params, name) for e in encoded])
    assert np.array_equal(helper.decode(encoded, params, name), singles)


@pytest.mark.parametrize("name", NAMES)
@shapes_of
def test_encode_takes_any_memory_layout(name, params, rng):
    p = drawn(rng, params)
    turned = np.asfortranarray(p)
    kept = p.copy()
    assert helper.encode(turned, params, name) == helper.encode(p, params, name)
    assert np.array_equal(p, kept)


@pytest.mark.parametrize("name", NAMES)
def test_decoded_helpers_are_float32(name, rng):
    encoded = helper.encode(drawn(rng, SQUARE), SQUARE, name)
    assert helper.decode(encoded, SQUARE, name).dtype == np.float32


@pytest.mark.parametrize("n", [64, 512])
def test_int8_keeps_a_signed_permutation(n):
    assert np.abs(round_trip(spiky(n)[None], "int8")[0] - spiky(n)).max() < 1 / 127


@pytest.mark.parametrize("name", STEPS)
def test_packed_levels_saturate_and_keep_the_sign(name):
    p = spiky(64)
    decoded = round_trip(p[None], name)[0]
    assert (np.abs(decoded).argmax(axis=1) == np.abs(p).argmax(axis=1)).all()
    assert (np.sign(decoded[p != 0]) == p[p != 0]).all()


@steady
@given(st.integers(1, 24), st.integers(1, 24), st.floats(1e-3, 1.0), st.integers(0, 2**32 - 1))
def test_int8_round_trip_of_any_matrix(r, n, size, seed):
    p = np.random.default_rng(seed).uniform(-size, size, (2, r, n)).astype(np.float32)
    level = np.abs(p).max(axis=2, keepdims=True) / 127
    # A subnormal float16 scale is exact to 2^-24 only.
    bound = level * (0.5 * (1 + 2.0**-9) + 1e-5) + 64 * 2.0**-24
    assert (np.abs(round_trip(p, "int8") - p) <= bound).all()


@steady
@given(
    st.sampled_from(list(STEPS)), st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1)
)
def test_packed_round_trip_of_any_matrix(name, r, n, seed):
    p = np.random.default_rng(seed).standard_normal((2, r, n)).astype(np.float32)
    step = STEPS[name] / np.sqrt(r)
    top = step * (2 ** (int(name[-1]) - 1) - 0.5)
    expected = np.clip(p, -top, top)
    assert (np.abs(round_trip(p, name) - expected) <= step / 2 * (1 + 1e-3)).all()


def shape_of(vector):
    """Of a square real helper, or what the vector says."""
    n = vector["n"]
    return Shape(vector.get("rows", n), n, vector.get("code_width", n))


def test_decoding_matches_the_vectors(vectors):
    stored = vectors("helpers"), vectors("helpers_v2")
    for some in stored:
        assert {v["tag"] for v in some} == {f"{name}.1" for name in NAMES}
    for v in chain(*stored):
        data = np.frombuffer(bytes.fromhex(v["bytes"]), np.uint8)[None]
        decoded = helper.encoding(v["tag"]).from_bytes(data, shape_of(v))
        assert decoded.ravel() == pytest.approx(v["entries"], rel=1e-6, abs=1e-9)


def test_encoding_matches_the_vectors(vectors):
    """Entries taken from the packed vectors must give their bytes back."""
    every = [*vectors("helpers"), *vectors("helpers_v2")]
    for v in (v for v in every if not v["tag"].startswith("int8")):
        of = shape_of(v)
        p = np.array(v["entries"], dtype=np.float32).reshape(1, of.rows, of.columns)
        assert helper.encoding(v["tag"]).to_bytes(p, of)[0].tobytes().hex() == v["bytes"]


@pytest.mark.parametrize("name", NAMES)
def test_tag_is_name_and_version(name):
    found = helper.encoding(name)
    assert found.tag == f"{name}.1"
    assert helper.encoding(found.tag) is found


@pytest.mark.parametrize("unknown", ["int7", "", ".1", "INT8", "bits7.1"])
def test_unknown_encoding_is_refused(unknown):
    with pytest.raises(ParameterError, match="the encodings are float32"):
        helper.encoding(unknown)


@pytest.mark.parametrize("tag", ["int8.2", "bits4.0", "float32.1.1", "float16.x"])
def test_other_versions_are_refused(tag):
    with pytest.raises(EncodingError, match="version 1"):
        helper.encoding(tag)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
@shapes_of
def test_wrong_lengths_are_refused(name, change, params, rng):
    good = helper.encode(drawn(rng, params), params, name)[0]
    with pytest.raises(EncodingError, match=f"helper of n {params.n}.* has"):
        helper.decode([good, change(good)], params, name)


def test_lengths_that_only_add_up_are_refused(rng):
    good = helper.encode(drawn(rng, SQUARE), SQUARE)[0]
    with pytest.raises(EncodingError):
        helper.decode([good[:-1], good + b"\0"], SQUARE, "int8")


@shapes_of
def test_a_helper_of_another_shape_is_refused(params, rng):
    good = helper.encode(drawn(rng, params), params)
    for other in SHAPES.values():
        if other != params:
            with pytest.raises(EncodingError):
                helper.decode(good, other, "int8")


def test_encoding_table_cannot_be_changed():
    with pytest.raises(TypeError):
        helper.ENCODINGS["rot13"] = helper.encoding("int8")  # type: ignore[index]


@pytest.mark.parametrize("name", helper.ENCODINGS)
@pytest.mark.parametrize("params", [*SHAPES.values(), FULL], ids=[*SHAPES, "full"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_projection_is_that_of_the_decoded_helper(name, params, count, rng):
    encoded = helper.encode(drawn(rng, params), params, name)[0]
    vectors = rng.standard_normal((count, params.n)).astype(np.float32)
    expected = vectors @ helper.decode([encoded], params, name)[0].T
    np.testing.assert_allclose(helper.project(encoded, params, name, vectors), expected, atol=2e-5)


@pytest.mark.parametrize("name", ["int8", "float16"])
@shapes_of
def test_projection_of_a_damaged_helper_is_refused(name, params, rng):
    good = helper.encode(drawn(rng, params), params, name)[0]
    vectors = np.ones((1, params.n), dtype=np.float32)
    for bad in (good[:-1], b"\x00\x7c" + good[2:]):
        with pytest.raises(EncodingError):
            helper.project(bad, params, name, vectors)


@pytest.mark.parametrize("name", NAMES)
@shapes_of
def test_encoding_leaves_its_input_alone_unless_it_may_not(name, params, rng):
    p = drawn(rng, params, 2)
    kept = p.copy()
    encoded = helper.encode(p, params, name)
    assert np.array_equal(p, kept)
    assert helper.encode(p, params, name, overwrite=True) == encoded
