"""Protect and verify: P t = c, fresh randomness, refusals, and nothing leaves but the row."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.laws import times

from ironmask import (
    Params,
    ProtectedTemplate,
    algebra,
    codeword,
    digest,
    helper,
    preset,
    protect,
    protect_batch,
    rotation,
    verify,
    verify_batch,
)
from ironmask.errors import EncodingError, ParameterError, ProtectionError, TemplateError

steady = settings(deadline=None, derandomize=True, database=None, max_examples=40)
WIDTHS = [64, 65, 100, 128, 512, 1024]
ENCODINGS = list(helper.ENCODINGS)
SMALL = Params(64, 8, 1)
QUATERNIONIC = Params(64, 8, 1, structure="quaternionic")
WIDE = Params(64, 8, 1, 128, "quaternionic")


def unit(vector):
    return vector / np.linalg.norm(vector)


def opened(row):
    return helper.decode([row.helper], row.params, row.encoding)[0].astype(np.float64)


def recovered(row, template):
    """The codeword of a row, which only the template's owner can find."""
    return codeword.decode(opened(row) @ unit(template), row.params.alpha)


def towards_another_person(template, cosine, rng):
    aside = rng.standard_normal(template.shape)
    aside = unit(aside - (aside @ unit(template)) * unit(template))
    return cosine * unit(template) + np.sqrt(1 - cosine**2) * aside


@pytest.mark.parametrize("n", WIDTHS)
def test_helper_takes_the_template_to_a_codeword(n, rng, row_key):
    t = rng.standard_normal(n)
    params = Params(n, 8, 0)
    row = protect(t, params, row_key, encoding="float32", rng=rng)
    p = opened(row)
    assert np.abs(p @ p.T - np.eye(n)).max() < 1e-5
    assert np.abs(p.T @ p - np.eye(n)).max() < 1e-5
    assert np.abs(p @ unit(t) - codeword.dense(recovered(row, t), n)[0]).max() < 1e-5


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize(
    "params",
    [
        Params(64, 8, 0),
        Params(512, 16, 0),
        Params(512, 24, 0),
        Params(512, 16, 4, version=1),
        Params(512, 16, 4, structure="quaternionic"),
        Params(512, 16, 3, 1024, "quaternionic"),
        Params(66, 8, 1, 199),
    ],
    ids=lambda p: f"{p.structure}-{p.n}-{p.code_width}-{p.alpha}-v{p.version}",
)
def test_every_encoding_verifies_its_own_template(name, params, rng, row_key):
    t = rng.standard_normal(params.n)
    row = protect(t, params, row_key, encoding=name, rng=rng)
    assert row.encoding == f"{name}.1"
    assert row.digests == digest.digests(recovered(row, t)[0], row.params, row_key)
    assert verify(row, t, row_key) is True


@pytest.mark.parametrize("name", ENCODINGS)
def test_encoded_helpers_take_the_template_near_its_codeword(name, rng, row_key):
    limits = {"float32": 1e-5, "float16": 1e-3, "int8": 0.01}
    t = rng.standard_normal(512)
    row = protect(t, Params(), row_key, encoding=name, rng=rng)
    u = opened(row) @ unit(t)
    c = codeword.dense(recovered(row, t), 512)[0]
    assert np.abs(u - c).max() < limits.get(name, 0.05)


@pytest.mark.parametrize(
    "params",
    [
        *(Params(n, 10, 2) for n in WIDTHS),
        Params(512, 10, 2, version=1),
        Params(65, 10, 2, 131),
        Params(64, 10, 2, 128, "quaternionic"),
        Params(512, 18, 3, 1024, "quaternionic"),
        Params(512, 16, 4, 512, "quaternionic"),
    ],
    ids=lambda p: f"{p.structure}-{p.n}-{p.code_width}-v{p.version}",
)
def test_genuine_matches_and_impostor_does_not(params, rng, row_key):
    n = params.n
    t = rng.standard_normal(n)
    row = protect(t, params, row_key, rng=rng)
    assert verify(row, towards_another_person(t, 0.97, rng), row_key)
    assert not verify(row, rng.standard_normal(n), row_key)
    assert not verify(row, -t, row_key)
    assert not verify(row, t, b"another row key of 32 bytes long")


@pytest.mark.parametrize(
    "params", [Params(), preset("balanced"), preset("compact")], ids=lambda p: str(p.code_width)
)
def test_no_impostor_of_many_matches(params, rng, row_key):
    row = protect(rng.standard_normal(512), params, row_key, rng=rng)
    assert not verify_batch(row, rng.standard_normal((300, 512)), row_key).any()


@pytest.mark.parametrize("name", ["int8", "bits5"])
@pytest.mark.parametrize("params", [QUATERNIONIC, WIDE, preset("balanced")])
def test_multiples_of_a_template_give_other_codewords(params, name, rng, row_key):
    """A helper takes t i to c i. Its digests are those of c alone, so t i is refused."""
    t = rng.standard_normal(params.n)
    row = protect(t, params, row_key, encoding=name, rng=rng)
    code = recovered(row, t)
    multiples = algebra.unit_multiples(code, params.structure)
    for unit_scalar, multiple in zip(np.eye(4), multiples, strict=True):
        turned = times(t, unit_scalar)
        assert np.array_equal(recovered(row, turned), multiple)
        assert verify(row, turned, row_key) is bool(unit_scalar[0])


@pytest.mark.parametrize(("version", "width"), [(1, 16), (2, 8)])
def test_defaults_are_int8_and_1820_tags(version, width, rng, row_key):
    row = protect(rng.standard_normal(512), Params(version=version), row_key)
    assert row.encoding == "int8.1"
    assert len(row.helper) == 263_168
    assert len(row.digests) == 1820 * width


@pytest.mark.parametrize("params", [SMALL, QUATERNIONIC, WIDE])
def test_batch_equals_singles_under_one_seed(params, row_key):
    templates = np.random.default_rng(1).standard_normal((4, 64))
    keys = [bytes([i]) * 32 for i in range(4)]
    batch = protect_batch(templates, params, keys, rng=np.random.default_rng(2))
    rng = np.random.default_rng(2)
    assert batch == [protect(t, params, k, rng=rng) for t, k in zip(templates, keys, strict=True)]


def test_every_row_of_a_batch_has_its_own_key(rng):
    templates = rng.standard_normal((3, 64))
    keys = [bytes([i]) * 32 for i in range(3)]
    rows = protect_batch(templates, SMALL, keys, rng=rng)
    opens = [[verify(row, t, key) for key in keys] for row, t in zip(rows, templates, strict=True)]
    assert opens == np.eye(3, dtype=bool).tolist()


@pytest.mark.parametrize("params", [SMALL, QUATERNIONIC, WIDE])
def test_verify_batch_equals_singles(params, rng, row_key):
    t = rng.standard_normal(64)
    row = protect(t, params, row_key, rng=rng)
    probes = np.stack([towards_another_person(t, c, rng) for c in np.linspace(0.5, 1, 40)])
    answers = verify_batch(row, probes, row_key)
    assert answers.dtype == np.bool_
    assert answers.tolist() == [verify(row, probe, row_key) for probe in probes]
    assert 0 < answers.sum() < 40


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-3, 1.0, 1e4, 1e300])
def test_scale_of_template_and_probe_does_not_count(scale, row_key):
    t = np.sign(np.random.default_rng(1).standard_normal(64))
    plain = protect(t, SMALL, row_key, rng=np.random.default_rng(2))
    scaled = protect(t * scale, SMALL, row_key, rng=np.random.default_rng(2))
    assert scaled == plain
    assert verify(plain, t * scale, row_key)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_any_number_type_is_taken(dtype, rng, row_key):
    t = rng.integers(-50, 50, 64).astype(dtype)
    row = protect(t, SMALL, row_key, rng=rng)
    assert verify(row, t.tolist(), row_key)


def test_template_is_left_alone(rng, row_key):
    templates = rng.standard_normal((2, 64))
    kept = templates.copy()
    protect_batch(templates, SMALL, [row_key, row_key], rng=rng)
    assert np.array_equal(templates, kept)


def test_two_rows_of_one_template_differ_in_every_way(rng, row_key):
    t = rng.standard_normal(512)
    a, b = (protect(t, Params(512, 16, 1), row_key, encoding="float32") for _ in range(2))
    assert a.helper != b.helper
    assert len(set(tags(a)) & set(tags(b))) == 0
    assert codeword.agreement(recovered(a, t), recovered(b, t))[0] < 8
    linking = opened(b) @ opened(a).T
    assert np.abs(linking).max() < 0.35
    assert np.abs(opened(a) - opened(b)).max() > 0.1


def tags(row):
    width = digest.tag_bytes(row.params)
    return [row.digests[i : i + width] for i in range(0, len(row.digests), width)]


def test_rows_of_one_batch_differ(rng, row_key):
    t = rng.standard_normal(64)
    a, b = protect_batch([t, t], SMALL, [row_key, row_key])
    assert a.helper != b.helper
    assert set(tags(a)).isdisjoint(tags(b))


def test_entries_of_the_helper_do_not_show_the_template(rng, row_key):
    """Without the codeword, P is Haar: its columns weigh no coordinate of t more."""
    spike = np.zeros(512)
    spike[0] = 1
    energy = np.mean(
        [
            opened(protect(spike, Params(), row_key, encoding="float32"))[:, 1:] ** 2
            for _ in range(3)
        ]
    )
    assert energy == pytest.approx(1 / 512, rel=0.01)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("params", [SMALL, QUATERNIONIC, WIDE])
def test_template_that_is_a_codeword(sign, name, params, rng, row_key):
    t = sign * codeword.dense(codeword.sample(rng, 64, 8), 64)[0]
    row = protect(t, params, row_key, encoding=name, rng=rng)
    assert verify(row, t, row_key)
    assert not verify(row, -t, row_key)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("n", [64, 512])
def test_spiky_template(name, n, rng, row_key):
    """All energy in one entry: column one of P is the codeword itself."""
    spike = np.zeros(n)
    spike[0] = 1
    try:
        row = protect(spike, Params(n, 8, 0), row_key, encoding=name, rng=rng)
    except ProtectionError:
        assert name.startswith("bits")
        return
    assert verify(row, spike, row_key)


@steady
@given(st.integers(0, 2**32 - 1), st.sampled_from(ENCODINGS), st.integers(2, 16), st.data())
def test_what_was_protected_verifies(seed, name, alpha, data):
    rng = np.random.default_rng(seed)
    tolerance = data.draw(st.integers(0, min(alpha - 1, 3)))
    t = rng.standard_normal(64) * rng.exponential(1, 64)
    key = rng.bytes(32)
    structure = data.draw(st.sampled_from(["real", "quaternionic"]))
    code_width = data.draw(st.sampled_from([64, 100, 128]))
    params = Params(64, alpha, tolerance, code_width, structure)
    row = protect(t, params, key, encoding=name, rng=rng)
    assert verify(row, t, key)
    assert not verify(row, t, rng.bytes(32))


REASONS = [
    (np.ones(63), "wrong_width"),
    (np.ones((1, 65)), "wrong_width"),
    (np.full(64, np.nan), "not_finite"),
    (np.full(64, np.inf), "not_finite"),
    (np.zeros(64), "zero_norm"),
]


@pytest.mark.parametrize(("bad", "reason"), REASONS)
def test_unusable_templates_and_probes_are_refused(bad, reason, rng, row_key):
    with pytest.raises(TemplateError) as caught:
        protect(bad, SMALL, row_key, rng=rng)
    assert caught.value.reason == reason
    row = protect(rng.standard_normal(64), SMALL, row_key, rng=rng)
    with pytest.raises(TemplateError) as caught:
        verify(row, bad, row_key)
    assert caught.value.reason == reason


def test_one_bad_row_refuses_the_batch(rng, row_key):
    templates = rng.standard_normal((3, 64))
    templates[1, 5] = np.nan
    with pytest.raises(TemplateError):
        protect_batch(templates, SMALL, [row_key] * 3, rng=rng)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_row_keys_must_be_as_many_as_templates(count, rng, row_key):
    with pytest.raises(ParameterError, match="2 templates need as many row keys"):
        protect_batch(rng.standard_normal((2, 64)), SMALL, [row_key] * count, rng=rng)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_row_keys_must_have_32_bytes(size, rng):
    with pytest.raises(ParameterError, match="32 bytes"):
        protect(rng.standard_normal(64), SMALL, b"k" * size, rng=rng)


def test_unknown_encoding_is_refused(rng, row_key):
    with pytest.raises(ParameterError, match="unknown encoding"):
        protect(rng.standard_normal(64), SMALL, row_key, encoding="int7", rng=rng)


def test_empty_batches_are_empty(rng, row_key):
    assert protect_batch(np.zeros((0, 64)), SMALL, [], rng=rng) == []
    row = protect(rng.standard_normal(64), SMALL, row_key, rng=rng)
    assert verify_batch(row, np.zeros((0, 64)), row_key).tolist() == []


def test_verify_refuses_more_than_one_probe(rng, row_key):
    t = rng.standard_normal(64)
    row = protect(t, SMALL, row_key, rng=rng)
    with pytest.raises(TemplateError):
        verify(row, [t, -t], row_key)


def test_tampered_helper_does_not_verify(rng, row_key):
    t = rng.standard_normal(64)
    row = protect(t, SMALL, row_key, rng=rng)
    foreign = protect(t, SMALL, row_key, rng=rng)
    assert not verify(dataclasses.replace(row, helper=foreign.helper), t, row_key)
    with pytest.raises(EncodingError):
        verify(dataclasses.replace(row, helper=row.helper[:-1]), t, row_key)


def test_another_version_is_refused(rng, row_key):
    row = protect(rng.standard_normal(64), SMALL, row_key, rng=rng)
    with pytest.raises(EncodingError, match="version"):
        verify(dataclasses.replace(row, encoding="int8.2"), np.ones(64), row_key)


def shuffled(name="int8"):
    """An encoding that gives back the rows of P in another order."""
    sound = helper.encoding(name)
    return dataclasses.replace(
        sound, from_bytes=lambda b, of: sound.from_bytes(b, of)[:, ::-1], blockwise=None
    )


def negated(name="int8"):
    sound = helper.encoding(name)
    return dataclasses.replace(sound, to_bytes=lambda p, of: sound.to_bytes(-p, of))


@pytest.mark.parametrize("params", [SMALL, QUATERNIONIC, WIDE])
@pytest.mark.parametrize("broken", [shuffled, negated])
def test_broken_encoding_is_caught_before_a_row_leaves(broken, params, rng, row_key, monkeypatch):
    monkeypatch.setattr(helper, "ENCODINGS", {**helper.ENCODINGS, "int8": broken()})
    with pytest.raises(ProtectionError, match="does not verify after encoding"):
        protect(rng.standard_normal(64), params, row_key, rng=rng)


@pytest.mark.parametrize("params", [SMALL, QUATERNIONIC, WIDE])
def test_broken_rotation_is_caught_before_a_row_leaves(params, rng, row_key, monkeypatch):
    monkeypatch.setattr(rotation.Sampler, "carrying", lambda self, rng, *_: self.haar(rng))
    with pytest.raises(ProtectionError):
        protect(rng.standard_normal(64), params, row_key, rng=rng)


def test_error_text_holds_no_numbers_of_the_row(rng, row_key, monkeypatch):
    monkeypatch.setattr(helper, "ENCODINGS", {**helper.ENCODINGS, "int8": negated()})
    with pytest.raises(ProtectionError) as caught:
        protect(rng.standard_normal(64), SMALL, row_key, rng=rng)
    assert "[" not in str(caught.value)
    assert "b'" not in str(caught.value)


def test_repr_shows_no_bytes(rng, row_key):
    row = protect(rng.standard_normal(64), SMALL, row_key, rng=rng)
    shown = f"{row!r} {row}"
    assert "b'" not in shown
    assert "helper" not in shown
    assert "digests" not in shown
    assert len(shown) < 300


def test_a_row_has_four_fields_and_survives_pickling(rng, row_key):
    row = protect(rng.standard_normal(64), SMALL, row_key, rng=rng)
    names = [f.name for f in dataclasses.fields(ProtectedTemplate)]
    assert names == ["params", "encoding", "helper", "digests"]
    assert pickle.loads(pickle.dumps(row)) == row  # noqa: S301
    assert row.digests not in pickle.dumps(dataclasses.replace(row, digests=b""))


def test_row_is_opened_after_encoding(rng, row_key, monkeypatch):
    """The last thing before the digests is a decode of the very bytes that leave."""
    seen = []
    project = helper.project
    monkeypatch.setattr(helper, "project", lambda h, *of: seen.append(h) or project(h, *of))
    row = protect(rng.standard_normal(64), SMALL, row_key, rng=rng)
    assert seen == [row.helper]


@pytest.mark.parametrize("params", [SMALL, QUATERNIONIC, WIDE])
def test_plain_helper_is_wiped(params, rng, row_key, monkeypatch):
    """The matrix that was encoded holds zeros once the row is out."""
    seen = []
    carrying = rotation.Sampler.carrying

    def watched(*arguments):
        seen.append(carrying(*arguments))
        return seen[-1]

    monkeypatch.setattr(rotation.Sampler, "carrying", watched)
    protect(rng.standard_normal(64), params, row_key, encoding="float32", rng=rng)
    assert len(seen) == 1
    assert not seen[0].any()
