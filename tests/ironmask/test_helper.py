"""Helper encodings: lengths, round trips, versions, refusals, and stored bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironmask import helper, rotation
from ironmask.errors import EncodingError, ParameterError

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


@pytest.fixture(scope="module")
def p512():
    return rotation.haar(np.random.default_rng(3), 512)


def round_trip(p, name):
    return helper.decode(helper.encode(p, name), name, p.shape[-1])


def spiky(n):
    """A signed permutation: every row has one entry of size one."""
    return (np.eye(n, dtype=np.float32)[::-1] * np.where(np.arange(n) % 2, -1, 1)).astype("f4")


def test_encodings_are_the_documented_six():
    assert list(helper.ENCODINGS) == NAMES
    assert helper.DEFAULT_ENCODING == "int8"


@pytest.mark.parametrize("name", NAMES)
def test_lengths_at_512(name, p512):
    assert helper.encoding(name).nbytes(512) == LENGTHS_AT_512[name]
    assert len(helper.encode(p512[None], name)[0]) == LENGTHS_AT_512[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, 3, 64, 65, 100, 128])
def test_lengths_at_other_widths(name, n, rng):
    encoded = helper.encode(rotation.haar(rng, n)[None], name)[0]
    assert len(encoded) == helper.encoding(name).nbytes(n)
    assert helper.decode([encoded], name, n).shape == (1, n, n)


def test_default_is_int8(p512):
    assert helper.encode(p512[None]) == helper.encode(p512[None], "int8")


def test_float32_is_exact(p512):
    assert np.array_equal(round_trip(p512[None], "float32")[0], p512)


def test_float16_error_is_half_a_unit_in_the_last_place(p512):
    error = np.abs(round_trip(p512[None], "float16")[0] - p512)
    assert (error <= np.abs(p512) * 2.0**-11 + 2.0**-25).all()


@pytest.mark.parametrize("n", [64, 65, 512])
def test_int8_error_is_half_a_level_of_the_row(n, rng):
    p = rotation.haar(rng, n)
    level = np.abs(p).max(axis=1, keepdims=True) / 127
    error = np.abs(round_trip(p[None], "int8")[0] - p)
    # The scale is rounded up by at most one and a half units in its last place of ten bits.
    assert (error <= level * (0.5 * (1 + 1.5 * 2.0**-10) + 1e-5)).all()
    assert error.max() > 0


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("n", [64, 65, 512])
def test_packed_error_is_half_a_step_inside_the_range(name, n, rng):
    p = rotation.haar(rng, n)
    step = STEPS[name] / np.sqrt(n)
    reach = step * 2 ** (int(name[-1]) - 1)
    decoded = round_trip(p[None], name)[0]
    inside = np.abs(p) <= reach
    assert (np.abs(decoded - p)[inside] <= step / 2 * (1 + 1e-4)).all()
    assert decoded[~inside] == pytest.approx(np.sign(p[~inside]) * (reach - step / 2), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("bits6", 0.0009, 0.0012), ("bits5", 0.0033, 0.0037), ("bits4", 0.0111, 0.0120)],
)
def test_packed_distortion_is_that_of_the_best_uniform_quantiser(name, least, most, p512):
    """Share of the variance: 0.01154 at 4 bits, 0.00349 at 5 (Max 1960), 0.00104 at 6."""
    assert least < 512 * np.mean((round_trip(p512[None], name)[0] - p512) ** 2) < most


@pytest.mark.parametrize("name", NAMES)
def test_encoding_what_was_decoded_changes_nothing_more(name, rng):
    once = round_trip(rotation.haar(rng, 64)[None], name)
    assert np.abs(round_trip(once, name) - once).max() < 2e-3


@pytest.mark.parametrize("name", ["float32", "float16", "bits6", "bits5", "bits4"])
def test_encoding_is_idempotent(name, rng):
    once = helper.encode(rotation.haar(rng, 65)[None], name)
    assert helper.encode(helper.decode(once, name, 65), name) == once


@pytest.mark.parametrize("name", NAMES)
def test_batch_equals_singles(name, rng):
    p = np.stack([rotation.haar(rng, 65) for _ in range(3)])
    encoded = helper.encode(p, name)
    assert encoded == [helper.encode(one[None], name)[0] for one in p]
    singles = np.concatenate([helper.decode([e], name, 65) for e in encoded])
    assert np.array_equal(helper.decode(encoded, name, 65), singles)


@pytest.mark.parametrize("name", NAMES)
def test_encode_takes_any_memory_layout(name, rng):
    p = rotation.haar(rng, 64)[None]
    turned = np.asfortranarray(p)
    kept = p.copy()
    assert helper.encode(turned, name) == helper.encode(p, name)
    assert np.array_equal(p, kept)


@pytest.mark.parametrize("name", NAMES)
def test_decoded_helpers_are_float32(name, rng):
    assert round_trip(rotation.haar(rng, 64)[None], name).dtype == np.float32


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
@given(st.integers(1, 24), st.floats(1e-3, 1.0), st.integers(0, 2**32 - 1))
def test_int8_round_trip_of_any_matrix(n, size, seed):
    p = np.random.default_rng(seed).uniform(-size, size, (2, n, n)).astype(np.float32)
    level = np.abs(p).max(axis=2, keepdims=True) / 127
    # A subnormal float16 scale is exact to 2^-24 only.
    bound = level * (0.5 * (1 + 2.0**-9) + 1e-5) + 64 * 2.0**-24
    assert (np.abs(round_trip(p, "int8") - p) <= bound).all()


@steady
@given(st.sampled_from(list(STEPS)), st.integers(1, 24), st.integers(0, 2**32 - 1))
def test_packed_round_trip_of_any_matrix(name, n, seed):
    p = np.random.default_rng(seed).standard_normal((2, n, n)).astype(np.float32)
    step = STEPS[name] / np.sqrt(n)
    top = step * (2 ** (int(name[-1]) - 1) - 0.5)
    expected = np.clip(p, -top, top)
    assert (np.abs(round_trip(p, name) - expected) <= step / 2 * (1 + 1e-3)).all()


def test_decoding_matches_the_vectors(vectors):
    stored = vectors("helpers")
    assert {v["tag"] for v in stored} == {f"{name}.1" for name in NAMES}
    for v in stored:
        n = v["n"]
        decoded = helper.decode([bytes.fromhex(v["bytes"])], v["tag"], n)
        assert decoded.ravel() == pytest.approx(v["entries"], rel=1e-6, abs=1e-9)


def test_encoding_matches_the_vectors(vectors):
    """Entries taken from the packed vectors must give their bytes back."""
    packed = [v for v in vectors("helpers") if not v["tag"].startswith("int8")]
    for v in packed:
        p = np.array(v["entries"], dtype=np.float32).reshape(1, v["n"], v["n"])
        assert helper.encode(p, v["tag"])[0].hex() == v["bytes"]


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
def test_wrong_lengths_are_refused(name, change, rng):
    good = helper.encode(rotation.haar(rng, 64)[None], name)[0]
    with pytest.raises(EncodingError, match="of width 64 has"):
        helper.decode([good, change(good)], name, 64)


def test_lengths_that_only_add_up_are_refused(rng):
    good = helper.encode(rotation.haar(rng, 64)[None])[0]
    with pytest.raises(EncodingError):
        helper.decode([good[:-1], good + b"\0"], "int8", 64)


def test_a_helper_of_another_width_is_refused(rng):
    good = helper.encode(rotation.haar(rng, 64)[None])
    with pytest.raises(EncodingError):
        helper.decode(good, "int8", 65)


def test_encoding_table_cannot_be_changed():
    with pytest.raises(TypeError):
        helper.ENCODINGS["rot13"] = helper.encoding("int8")  # type: ignore[index]


@pytest.mark.parametrize("name", helper.ENCODINGS)
@pytest.mark.parametrize("n", [64, 65, 100, 512])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_projection_is_that_of_the_decoded_helper(name, n, count, rng):
    encoded = helper.encode(rotation.haar(rng, n)[None], name)[0]
    vectors = rng.standard_normal((count, n)).astype(np.float32)
    expected = vectors @ helper.decode([encoded], name, n)[0].T
    np.testing.assert_allclose(helper.project(encoded, name, vectors), expected, atol=2e-5)


@pytest.mark.parametrize("name", ["int8", "float16"])
def test_projection_of_a_damaged_helper_is_refused(name, rng):
    good = helper.encode(rotation.haar(rng, 64)[None], name)[0]
    vectors = np.ones((1, 64), dtype=np.float32)
    for bad in (good[:-1], b"\x00\x7c" + good[2:]):
        with pytest.raises(EncodingError):
            helper.project(bad, name, vectors)


@pytest.mark.parametrize("name", helper.ENCODINGS)
def test_encoding_leaves_its_input_alone_unless_it_may_not(name, rng):
    p = rotation.haar(rng, 64)[None]
    kept = p.copy()
    encoded = helper.encode(p, name)
    assert np.array_equal(p, kept)
    assert helper.encode(p, name, overwrite=True) == encoded
