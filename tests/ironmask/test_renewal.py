"""Verify and renew: the decision of verify, the template that was enrolled, a row that is new."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

import ironmask
from ironmask import (
    Params,
    codeword,
    digest,
    helper,
    protect,
    renewal,
    rotation,
    verify,
    verify_and_renew,
)
from ironmask.errors import EncodingError, ParameterError, ProtectionError, TemplateError
from ironmask.filling import Filling
from ironmask.template import reopen

NEW_KEY = b"a renewed row's key of 32 bytes!"
FIRST = Params(64, 8, 2, version=1)
QUATERNIONIC = Params(64, 8, 2, 64, "quaternionic")
WIDE = Params(64, 8, 2, 128, "quaternionic")
SETTINGS = [
    FIRST,
    Params(64, 8, 0),
    Params(64, 8, 2),
    Params(128, 16, 4),
    Params(64, 3, 2),
    QUATERNIONIC,
    WIDE,
    Params(66, 8, 2, 131),
]
ENCODINGS = list(helper.ENCODINGS)
settings_of = pytest.mark.parametrize(
    "params",
    SETTINGS,
    ids=lambda p: f"v{p.version}-{p.structure}-{p.code_width}-{p.alpha}-{p.tolerance}",
)


def unit(vector):
    return vector / np.linalg.norm(vector)


def near(template, cosine, rng):
    aside = rng.standard_normal(template.shape)
    aside = unit(aside - (aside @ unit(template)) * unit(template))
    return cosine * unit(template) + np.sqrt(1 - cosine**2) * aside


def inner(row, template, key):
    """The template that a row holds, found by somebody who has it."""
    code = reopen(row, template, key)
    assert code is not None
    p = helper.decode([row.helper], row.params, row.encoding)[0]
    return unit(p.T @ codeword.dense(code, row.params.code_width)[0])


@settings_of
def test_a_genuine_probe_renews(params, rng, row_key):
    t = rng.standard_normal(params.n)
    row = protect(t, params, row_key, rng=rng)
    renewed = verify_and_renew(row, near(t, 0.97, rng), row_key, NEW_KEY, rng=rng)
    assert renewed is not None
    assert (renewed.params, renewed.encoding) == (row.params, row.encoding)
    assert verify(renewed, t, NEW_KEY)
    assert verify(renewed, near(t, 0.97, rng), NEW_KEY)
    assert not verify(renewed, t, row_key)
    assert not verify(row, t, NEW_KEY)
    assert not verify(renewed, -t, NEW_KEY)


@settings_of
def test_an_impostor_renews_nothing(params, rng, row_key):
    t = rng.standard_normal(params.n)
    row = protect(t, params, row_key, rng=rng)
    probes = [-t] if params.match_size < 2 else [-t, rng.standard_normal(params.n)]
    for probe in probes:
        assert verify_and_renew(row, probe, row_key, NEW_KEY, rng=rng) is None
    assert verify_and_renew(row, t, NEW_KEY, NEW_KEY, rng=rng) is None


@pytest.mark.parametrize(
    ("params", "low", "high"),
    [
        (Params(64, 8, 0), 0.5, 0.85),
        (Params(64, 8, 2), 0.35, 0.7),
        (Params(128, 16, 4), 0.4, 0.75),
        (Params(64, 8, 2, 64, "quaternionic"), 0.35, 0.7),
        (Params(64, 8, 2, 128, "quaternionic"), 0.4, 0.7),
    ],
    ids=lambda p: f"{p.structure}-{p.code_width}-{p.tolerance}" if hasattr(p, "n") else str(p),
)
def test_decisions_are_those_of_verify(params, low, high, rng, row_key):
    t = rng.standard_normal(params.n)
    row = protect(t, params, row_key, rng=rng)
    probes = [near(t, cosine, rng) for cosine in np.linspace(low, high, 60)]
    expected = [verify(row, probe, row_key) for probe in probes]
    renewed = [verify_and_renew(row, probe, row_key, NEW_KEY, rng=rng) for probe in probes]
    assert [new is not None for new in renewed] == expected
    assert 10 < sum(expected) < 50
    for new in renewed:
        assert new is None or unit(t) @ inner(new, t, NEW_KEY) > 0.999


@settings_of
@pytest.mark.parametrize("name", ENCODINGS)
def test_the_codeword_is_found_exactly(params, name, rng, row_key, monkeypatch):
    found = []
    template = renewal._template
    monkeypatch.setattr(renewal, "_template", lambda row, c: found.append(c) or template(row, c))
    for _ in range(3):
        t = rng.standard_normal(params.n)
        row = protect(t, params, row_key, encoding=name, rng=rng)
        assert verify_and_renew(row, near(t, 0.98, rng), row_key, NEW_KEY, rng=rng) is not None
        assert np.array_equal(found.pop(), reopen(row, t, row_key))


def test_nothing_of_the_probe_is_mixed_in(rng, row_key):
    t = rng.standard_normal(128)
    probe = near(t, 0.9, rng)
    row = protect(t, Params(128, 8, 2), row_key, encoding="float32", rng=rng)
    renewed = verify_and_renew(row, probe, row_key, NEW_KEY, rng=rng)
    assert np.abs(inner(renewed, t, NEW_KEY) - unit(t)).max() < 1e-5


def test_old_and_new_row_have_nothing_in_common(rng, row_key):
    t = rng.standard_normal(512)
    row = protect(t, Params(512, 16, 1), row_key, encoding="float32")
    renewed = verify_and_renew(row, t, row_key, row_key)
    assert codeword.agreement(reopen(row, t, row_key), reopen(renewed, t, row_key))[0] < 8
    first, second = (helper.decode([r.helper], r.params, "float32")[0] for r in (row, renewed))
    assert np.abs(second @ first.T).max() < 0.35


@pytest.mark.parametrize(
    ("name", "least"), [("float16", 0.999999), ("int8", 0.9997), ("bits6", 0.995), ("bits4", 0.95)]
)
@pytest.mark.parametrize(
    "params",
    [Params(512, 16, 0), Params(512, 16, 0, 1024, "quaternionic")],
    ids=["square", "wide quaternionic"],
)
def test_ten_renewals_stay_with_the_enrolled_template(name, least, params, rng, row_key):
    """Measured over four templates and square helpers: 1.0000, .9998, .9974 and .967."""
    t = unit(rng.standard_normal(512))
    keys = [bytes([i]) * 32 for i in range(11)]
    row = protect(t, params, keys[0], encoding=name, rng=rng)
    probe = t
    for old, new in pairwise(keys):
        row = verify_and_renew(row, probe, old, new, rng=rng)
        assert row is not None
        probe = inner(row, t, new)
    assert probe @ t > least


def test_filling_noise_is_kept_and_not_added_again(rng, row_key, monkeypatch):
    n, params = 128, Params(128, 8, 2)
    filling = Filling(np.ascontiguousarray(rotation.haar(rng, n)[:, :40].astype(np.float64)), 0.1)
    t = rng.standard_normal(n)
    t = unit(t - filling.directions @ (t @ filling.directions))
    held, template = [], renewal._template
    monkeypatch.setattr(renewal, "_template", lambda *of: held.append(template(*of)) or held[-1])
    row = protect(t, params, row_key, filling=filling, rng=rng)
    renewed = verify_and_renew(row, t, row_key, NEW_KEY, rng=rng)
    before, after = unit(held[0]), inner(renewed, held[0], NEW_KEY)
    assert before @ after > 0.999
    for filled in (before, after):
        assert filled @ t == pytest.approx(np.sqrt(0.9), abs=0.001)
        assert np.sum((filled @ filling.directions) ** 2) == pytest.approx(0.1, abs=0.005)


def test_parameters_and_encoding_may_change(rng, row_key):
    t = rng.standard_normal(512)
    row = protect(t, Params(512, 16, 4), row_key, rng=rng)
    stricter = Params(512, 16, 2)
    renewed = verify_and_renew(
        row, near(t, 0.9, rng), row_key, NEW_KEY, params=stricter, encoding="bits5", rng=rng
    )
    assert (renewed.params, renewed.encoding) == (stricter, "bits5.1")
    assert len(renewed.digests) == digest.digest_bytes(stricter)
    assert verify(renewed, near(t, 0.9, rng), NEW_KEY)
    assert unit(t) @ inner(renewed, t, NEW_KEY) > 0.99


@pytest.mark.parametrize("chain", [(FIRST, WIDE, WIDE), (FIRST, QUATERNIONIC, WIDE, QUATERNIONIC)])
def test_a_row_of_version_1_is_renewed_as_one_of_version_2(chain, rng, row_key):
    """To a wide quaternionic row, again, and back to a square one: always the same template."""
    t = unit(rng.standard_normal(64))
    row, key = protect(t, chain[0], row_key, encoding="float32", rng=rng), row_key
    for params in chain[1:]:
        probe, new_key = near(t, 0.97, rng), rng.bytes(32)
        renewed = verify_and_renew(row, probe, key, new_key, params=params, rng=rng)
        assert renewed.params == params
        assert len(renewed.helper) == helper.nbytes(params, "float32")
        assert len(renewed.digests) == 8 * params.digest_count
        assert np.abs(inner(renewed, t, new_key) - t).max() < 1e-5
        assert verify(renewed, near(t, 0.97, rng), new_key)
        assert not verify(renewed, rng.standard_normal(64), new_key)
        row, key = renewed, new_key


def test_a_wide_row_keeps_its_parameters_and_encoding(rng, row_key):
    t = rng.standard_normal(512)
    params = Params(512, 16, 3, 1024, "quaternionic")
    row = protect(t, params, row_key, encoding="bits6", rng=rng)
    renewed = verify_and_renew(row, near(t, 0.8, rng), row_key, NEW_KEY, rng=rng)
    assert (renewed.params, renewed.encoding) == (params, "bits6.1")
    assert verify(renewed, near(t, 0.8, rng), NEW_KEY)


@settings_of
def test_layered_keys_renew(params, rng, row_key):
    t = rng.standard_normal(params.n)
    layer = b"\x07" * 32
    row = protect(t, params, row_key, rng=rng)
    row = dataclasses.replace(row, digests=digest.relayered(row.digests, params, layer))
    probe = near(t, 0.97, rng)
    assert verify_and_renew(row, probe, row_key, NEW_KEY, rng=rng) is None
    renewed = verify_and_renew(row, probe, row_key + layer, NEW_KEY + layer, rng=rng)
    assert verify(renewed, probe, NEW_KEY + layer)
    assert not verify(renewed, probe, NEW_KEY)


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e4, 1e300])
def test_scale_of_the_probe_does_not_count(scale, rng, row_key):
    t = np.sign(rng.standard_normal(64))
    row = protect(t, Params(64, 8, 1), row_key, rng=rng)
    assert verify_and_renew(row, t * scale, row_key, NEW_KEY, rng=rng) is not None


def tampered(row, t, key):
    """A stored tag of the row replaced by a foreign one, the rest in order."""
    params = row.params
    foreign = protect(np.roll(t, 1), params, key).digests[: digest.tag_bytes(params)]
    width = digest.tag_bytes(params)
    tags = [row.digests[i : i + width] for i in range(0, len(row.digests), width)]
    return [
        dataclasses.replace(row, digests=b"".join(sorted([*tags[:at], foreign, *tags[at + 1 :]])))
        for at in range(len(tags))
    ]


def test_tags_that_are_not_those_of_one_codeword_renew_nothing(rng, row_key):
    t = rng.standard_normal(64)
    row = protect(t, Params(64, 5, 2), row_key, rng=rng)
    for bad in tampered(row, t, row_key):
        assert verify(bad, t, row_key)
        with pytest.raises(ProtectionError, match="enrol the subject anew"):
            verify_and_renew(bad, t, row_key, NEW_KEY, rng=rng)


def test_a_helper_that_is_not_orthogonal_renews_nothing(rng, row_key):
    """What matches is the probe; the template would be anybody's."""
    t = rng.standard_normal(64)
    row = protect(t, Params(64, 8, 2), row_key, encoding="float32", rng=rng)
    p = helper.decode([row.helper], row.params, "float32")[0]
    code = reopen(row, t, row_key)
    aside = unit(rng.standard_normal(64))
    aside -= aside @ unit(t) * unit(t)
    p += 0.9 * np.outer(codeword.dense(-code, 64)[0] + 4 * p @ unit(np.roll(t, 3)), aside)
    bad = dataclasses.replace(row, helper=p.astype("<f4").tobytes())
    assert verify(bad, t, row_key)
    with pytest.raises(ProtectionError, match="enrol the subject anew"):
        verify_and_renew(bad, t, row_key, NEW_KEY, rng=rng)


def test_error_text_holds_no_numbers_of_the_row(rng, row_key):
    t = rng.standard_normal(64)
    row = protect(t, Params(64, 5, 2), row_key, rng=rng)
    with pytest.raises(ProtectionError) as caught:
        verify_and_renew(tampered(row, t, row_key)[0], t, row_key, NEW_KEY, rng=rng)
    assert not set(str(caught.value)) & set("0123456789[")


@pytest.mark.parametrize("genuine", [True, False])
def test_unusable_settings_are_refused_whoever_comes(genuine, rng, row_key):
    t = rng.standard_normal(64)
    row = protect(t, Params(64, 8, 1), row_key, rng=rng)
    probe = t if genuine else -t
    with pytest.raises(ParameterError, match="width 64 cannot be renewed at width 65"):
        verify_and_renew(row, probe, row_key, NEW_KEY, params=Params(65, 8, 1), rng=rng)
    with pytest.raises(ParameterError, match="unknown encoding"):
        verify_and_renew(row, probe, row_key, NEW_KEY, encoding="int7", rng=rng)
    for bad in (b"", bytes(31), bytes(33)):
        with pytest.raises(ParameterError, match="32 bytes"):
            verify_and_renew(row, probe, row_key, bad, rng=rng)
        with pytest.raises(ParameterError, match="32 bytes"):
            verify_and_renew(row, probe, bad, NEW_KEY, rng=rng)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.ones(63), "wrong_width"),
        (np.ones((1, 64)), "wrong_width"),
        (np.full(64, np.nan), "not_finite"),
        (np.zeros(64), "zero_norm"),
    ],
)
def test_unusable_probes_are_refused(bad, reason, rng, row_key):
    row = protect(rng.standard_normal(64), Params(64, 8, 1), row_key, rng=rng)
    with pytest.raises(TemplateError) as caught:
        verify_and_renew(row, bad, row_key, NEW_KEY, rng=rng)
    assert caught.value.reason == reason


def test_damaged_rows_are_refused(rng, row_key):
    t = rng.standard_normal(64)
    row = protect(t, Params(64, 8, 1), row_key, rng=rng)
    for bad in ({"helper": row.helper[:-1]}, {"digests": row.digests[:-1]}, {"encoding": "int8.2"}):
        with pytest.raises(EncodingError):
            verify_and_renew(dataclasses.replace(row, **bad), t, row_key, NEW_KEY, rng=rng)


def test_a_renewed_row_that_does_not_verify_never_leaves(rng, row_key, monkeypatch):
    t = rng.standard_normal(64)
    row = protect(t, Params(64, 8, 1), row_key, rng=rng)
    monkeypatch.setattr(rotation.Sampler, "carrying", lambda self, rng, *_: self.haar(rng))
    with pytest.raises(ProtectionError, match="does not verify after encoding"):
        verify_and_renew(row, t, row_key, NEW_KEY, rng=rng)


def test_fresh_randomness_by_default(rng, row_key):
    t = rng.standard_normal(64)
    row = protect(t, Params(64, 8, 1), row_key, rng=rng)
    first, second = (verify_and_renew(row, t, row_key, NEW_KEY) for _ in range(2))
    assert first.helper != second.helper
    assert first.digests != second.digests


def test_it_is_part_of_the_safe_way_in():
    assert "verify_and_renew" in ironmask.__all__
    assert ironmask.verify_and_renew is renewal.verify_and_renew
