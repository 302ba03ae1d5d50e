"""Randomness: ChaCha with 20 rounds under fresh keys, and never NumPy's own generators."""

from __future__ import annotations

import ast
import copy
import multiprocessing
import pickle
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from randomgen import ChaCha
from scipy.stats import binom, kstest, norm

import ironmask
from ironmask import Params, codeword, protect, secure_generator
from ironmask import random as ironmask_random
from ironmask.errors import ParameterError

NOT_SECURE = {"default_rng", "PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64", "RandomState"}
LEGACY = {"seed", "rand", "randn", "randint", "normal", "standard_normal", "choice", "shuffle"}


def first_words(_=None):
    return tuple(secure_generator().integers(0, 2**63, 8).tolist())


def test_stream_is_chacha_with_twenty_rounds():
    generator = secure_generator()
    assert isinstance(generator, np.random.Generator)
    assert type(generator.bit_generator) is ChaCha
    assert generator.bit_generator.state["state"]["rounds"] == 20


RFC_8439 = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"


def test_raw_words_are_the_published_cipher_too(monkeypatch):
    monkeypatch.setattr(ironmask_random.secrets, "token_bytes", bytes)
    assert secure_generator().words(8).tobytes().hex() == RFC_8439


def test_raw_words_do_not_depend_on_how_many_are_asked_for(monkeypatch):
    monkeypatch.setattr(ironmask_random.secrets, "token_bytes", bytes)
    one, many = secure_generator(), secure_generator()
    whole = one.words(100_003)
    parts = [many.words(count) for count in (1, 2, 70_000, 30_000)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_every_stream_of_raw_words_is_its_own():
    drawn = [tuple(secure_generator().words(8).tolist()) for _ in range(200)]
    assert len(set(drawn)) == 200


def test_raw_words_get_a_new_key_before_their_counter_ends(monkeypatch):
    monkeypatch.setattr(ironmask_random, "_STREAM_BYTES", 64)
    keys = []
    fresh = ironmask_random.secrets.token_bytes
    monkeypatch.setattr(
        ironmask_random.secrets, "token_bytes", lambda k: keys.append(fresh(k)) or keys[-1]
    )
    generator = secure_generator()
    drawn = np.concatenate([generator.words(8) for _ in range(6)])
    # One for NumPy's own stream, three for the words.
    assert len(keys) == len(set(keys)) == 4
    assert {len(key) for key in keys} == {32}
    assert len(set(drawn.tolist())) == 48


@pytest.mark.parametrize("copy", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_secure_generator_is_not_copied(copy):
    with pytest.raises(TypeError, match="not copied"):
        copy(secure_generator())


@pytest.fixture(scope="module", params=["secure", "seeded"])
def normals(request):
    rng = secure_generator() if request.param == "secure" else np.random.default_rng(4)
    out = np.empty(4_000_001, dtype=np.float32)
    ironmask_random.fill_normals(rng, out)
    return out.astype(np.float64)


def test_normals_have_the_normal_law(normals):
    assert kstest(normals, norm.cdf).pvalue > 1e-4
    for edge in (2, 3, 4, 5):
        beyond = int((np.abs(normals) > edge).sum())
        assert 1e-5 < binom.cdf(beyond, len(normals), 2 * norm.sf(edge)) < 1 - 1e-5


def test_normals_have_the_normal_moments(normals):
    for power, moment in [(1, 0), (2, 1), (3, 0), (4, 3), (6, 15)]:
        values = normals**power
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - moment) < 5 * error


@pytest.mark.parametrize("lag", [1, 2, 1 << 12, 1 << 13, 1 << 14])
def test_normals_are_independent_at_a_distance(lag, normals):
    """Cosine and sine of one pair lie half a chunk apart."""
    for power in (1, 2):
        values = normals**power - (power == 2)
        products = values[:-lag] * values[lag:]
        assert abs(products.mean()) < 5 * products.std() / np.sqrt(len(products))


@pytest.mark.parametrize("count", [0, 1, 2, 3, (1 << 14) - 1, (1 << 14) + 1, 50_001])
def test_any_number_of_normals(count, rng):
    out = np.full(count, np.nan, dtype=np.float32)
    ironmask_random.fill_normals(rng, out)
    assert np.isfinite(out).all()
    assert len(set(out.tolist())) > 0.99 * count - 1


@pytest.mark.parametrize("word", [0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1])
def test_normals_of_extreme_words_are_finite(word, monkeypatch, rng):
    fixed = np.full(2, word, dtype=np.uint32)
    monkeypatch.setattr(ironmask_random, "raw_words", lambda _rng, count: fixed[:count])
    out = np.empty(2, dtype=np.float32)
    ironmask_random.fill_normals(rng, out)
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 7


def test_every_generator_has_its_own_stream():
    assert len({first_words() for _ in range(200)}) == 200


def test_keys_are_256_bits_from_the_operating_system(monkeypatch):
    asked = []
    key = (12345).to_bytes(32, "little")
    monkeypatch.setattr(ironmask_random.secrets, "token_bytes", lambda k: asked.append(k) or key)
    generator = secure_generator()
    assert asked == [32]
    expected = np.random.Generator(ChaCha(key=12345, rounds=20)).integers(0, 2**63, 8)
    assert generator.integers(0, 2**63, 8).tolist() == expected.tolist()


@pytest.mark.parametrize("bit", [0, 63, 64, 127, 128, 255])
def test_every_part_of_the_key_counts(bit, monkeypatch):
    monkeypatch.setattr(ironmask_random.secrets, "token_bytes", bytes)
    zero = first_words()
    key = (1 << bit).to_bytes(32, "little")
    monkeypatch.setattr(ironmask_random.secrets, "token_bytes", lambda _: key)
    assert first_words() != zero


def test_stream_is_the_published_cipher(monkeypatch):
    """ChaCha20 under a zero key, zero counter and zero nonce (RFC 8439, appendix A.1, vector 1)."""
    monkeypatch.setattr(ironmask_random.secrets, "token_bytes", bytes)
    words = secure_generator().bit_generator.random_raw(4).astype("<u8").tobytes()
    assert words.hex() == RFC_8439


def test_a_replayed_generator_repeats_itself_and_no_other():
    streams = [ironmask_random.ReplayedGenerator(bytes([k]) * 32) for k in (1, 1, 2)]
    drawn = [(g.words(9).tolist(), g.standard_normal(3).tolist()) for g in streams]
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0]
    assert drawn[0][1] != drawn[2][1]
    with pytest.raises(ParameterError, match="32 bytes"):
        ironmask_random.ReplayedGenerator(b"short")


def test_global_state_of_numpy_is_untouched(row_key):
    np.random.seed(7)
    before = np.random.get_state()
    protect(np.ones(64), Params(64, 8, 0), row_key)
    after = np.random.get_state()
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_global_seed_decides_nothing(row_key):
    rows = []
    for _ in range(2):
        np.random.seed(7)
        rows.append(protect(np.ones(64), Params(64, 8, 0), row_key))
    assert rows[0].helper != rows[1].helper


def test_protect_makes_a_secure_generator_unless_given_one(monkeypatch, row_key, rng):
    made = []
    # The package exports a function of the module's name.
    module = import_module("ironmask.template")
    monkeypatch.setattr(module, "secure_generator", lambda: made.append(1) or secure_generator())
    protect(np.ones(64), Params(64, 8, 0), row_key, rng=rng)
    assert made == []
    protect(np.ones(64), Params(64, 8, 0), row_key)
    assert made == [1]


def forbidden_names(path):
    for node in ast.walk(ast.parse(path.read_text())):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
        if name in NOT_SECURE:
            yield name
        if isinstance(node, ast.Attribute) and name in LEGACY:
            owner = ast.unparse(node.value)
            if owner in {"np.random", "numpy.random"}:
                yield f"{owner}.{name}"


def test_package_names_no_insecure_generator():
    folder = Path(ironmask.__file__).parent
    for path in folder.rglob("*.py"):
        assert list(forbidden_names(path)) == [], path.name


def test_package_draws_nothing_from_numpy_defaults(monkeypatch, row_key):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a default generator was made")

    for name in ("default_rng", "PCG64", "MT19937", "RandomState"):
        monkeypatch.setattr(np.random, name, refuse)
    assert len(protect(np.ones(64), Params(64, 8, 0), row_key).helper) == 64 * 64 + 128


def test_forked_processes_differ():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        drawn = pool.map(first_words, range(8), chunksize=1)
    assert len({*drawn, first_words()}) == 9


def test_fresh_codewords_in_fresh_generators():
    drawn = {tuple(codeword.sample(secure_generator(), 512, 16)[0]) for _ in range(50)}
    assert len(drawn) == 50
