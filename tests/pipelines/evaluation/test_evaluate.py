"""Evaluations of synthetic people: planted errors come back, what is no evaluation is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import ironmask

from infra.settings import StorageSettings
from infra.store.objects import FsspecStore
from ironmask import DEFAULT_PRESET, PRESETS, Params, candidates, codeword, preset
from ironmask.comparisons import Setting
from pipelines.evaluation import blocks, cost, frozen, job
from pipelines.evaluation.request import EvaluateRequest
from pipelines.evaluation.results import CaseResults, Results
from pipelines.evaluation.work import block_work
from pipelines.report import page, sheets, tables
from pipelines.report.headline import headline
from pipelines.spec.options import assembled

SUBJECTS, EACH, N = 30, 4, 64
SEED = "5a" * 32
ONCE = (SUBJECTS * EACH) * (SUBJECTS * EACH - 1) // 2
GENUINE = SUBJECTS * EACH * (EACH - 1) // 2


def people(rng, subjects=SUBJECTS, each=EACH, noise=0.9):
    """Subjects, images and embeddings; faces of one subject lie near one another."""
    owners = np.repeat(rng.standard_normal((subjects, N)), each, axis=0)
    vectors = owners + noise * rng.standard_normal(owners.shape)
    names = [f"p{number // each:03d}" for number in range(len(owners))]
    return names, [f"{name}_{i % each + 1:04d}" for i, name in enumerate(names)], vectors


def stored(path: Path, names, images, vectors, **more) -> Path:
    columns = {"subject_id": names, "image": images, **more}
    pq.write_table(pa.table({**columns, "embedding": list(vectors.astype(np.float32))}), path)
    return path


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def source(tmp_path, rng) -> Path:
    return stored(tmp_path / "people.parquet", *people(rng))


def run(source, out, **request) -> Results:
    asked = {"alphas": (6, 8), "tolerance": 2, "executor": "local", "seed": SEED, **request}
    wanted = assembled(EvaluateRequest, {"source": str(source), "out": str(out), **asked})
    prepared = job.prepare(wanted)
    with job.opened(wanted, prepared) as executor:
        return job.run(prepared, executor)


def run_one(source, out, **request) -> CaseResults:
    """An evaluation of one kind of templates."""
    (case,) = run(source, out, **request).cases
    return case


def told(found: CaseResults):
    return [
        (row.setting, row.params.tolerance, row.fmr.errors, row.fmr.trials, row.fnmr.errors)
        for row in found.protected
    ]


def test_all_pairs_once(source, tmp_path):
    found = run_one(source, tmp_path / "out")
    assert (found.genuine, found.impostor) == (GENUINE, ONCE - GENUINE)
    table = pq.read_table(source)
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = np.array(table["subject_id"].to_pylist())
    first, second = np.triu_indices(len(names), 1)
    cosine = (vectors @ vectors.T)[first, second]
    same = names[first] == names[second]
    for row in found.cosine:
        threshold = row.point.threshold
        assert row.fnmr.errors == (cosine[same] < threshold - 1e-7).sum()
        assert row.point.fmr == pytest.approx((cosine[~same] >= threshold - 1e-7).mean(), abs=1e-12)
        assert row.point.fmr <= row.target


@pytest.mark.slow
def test_protected_rates_are_those_of_codewords(source, tmp_path):
    """At these widths impostors are accepted in plenty, as often as uniform codewords would be."""
    found = run_one(source, tmp_path / "out", alphas=(4,), tolerance=1)
    plain = next(row for row in found.protected if row.params.tolerance == 1)
    rng = np.random.default_rng(0)
    params = Params(N, 4, 1)
    codes = codeword.sample(rng, N, 4, 400)
    hits = 0
    for code, u in zip(codes, rng.standard_normal((400, N)), strict=True):
        own = {tuple(s) for s in code[digest_index(params)].tolist()}
        hits += bool(own & {tuple(s) for s in candidates.subsets(u, params).tolist()})
    expected = hits / 400
    assert plain.fmr.value == pytest.approx(expected, abs=5 * np.sqrt(expected / 400))


def digest_index(params):
    from ironmask.digest import _subset_index

    return _subset_index(params.alpha, params.match_size)


def test_planted_errors_come_back(tmp_path, rng):
    """One face stored under two names is an impostor that no threshold refuses, and a stranger's
    face under a name a genuine one that none accepts."""
    names, images, vectors = people(rng, noise=0.3)
    vectors[EACH] = vectors[0]
    vectors[2 * EACH] = rng.standard_normal(N)
    found = run_one(
        stored(tmp_path / "p.parquet", names, images, vectors),
        tmp_path / "out",
        alphas=(12,),
        tolerance=0,
    )
    row = found.protected[0]
    assert row.fmr.errors >= 1
    assert row.fnmr.errors >= EACH - 1
    clean = run(
        stored(tmp_path / "q.parquet", names, images, vectors),
        tmp_path / "out2",
        alphas=(12,),
        tolerance=0,
        exclude=str(_list(tmp_path, "p001_0001", "p002_0001")),
    )
    assert clean.excluded == 2
    row = clean.cases[0].protected[0]
    assert (row.fmr.errors, row.fnmr.errors) == (0, 0)


def _list(folder: Path, *lines: str) -> Path:
    path = folder / "exclude.txt"
    path.write_text("# left out\n\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.slow
def test_the_headline_is_of_what_was_asked_for(source, tmp_path):
    """Whatever the results say: the best of many would look better than it is."""
    one = headline(run(source, tmp_path / "one", alphas=(8,), tolerance=2))
    assert one.startswith("N64 alpha8 int8 with tolerance 2 (")
    assert ", as asked for, accepts " in one
    assert re.search(r"accepts \d+\.\d % \(\d+\.\d to \d+\.\d %\) of genuine", one)
    assert re.search(r"at an FMR of .*: ?\d+ of [\d,]+ impostor comparisons accepted\)", one)
    several = headline(run(source, tmp_path / "two", alphas=(8, 12), tolerance=1))
    assert "none of them is singled out" in several
    named = {"alphas": (), "settings": ("64,8,2", DEFAULT_PRESET)}
    usual = headline(run(source, tmp_path / "three", **named))
    params = preset(DEFAULT_PRESET, N)
    start = f"{Setting(params).name} with tolerance {params.tolerance} ({params.bits:.1f} bits), "
    assert usual.startswith(f"{start}the default preset ({DEFAULT_PRESET}), accepts ")


def test_settings_are_named_whole(source, tmp_path):
    """Width, weight, tolerance and structure; two tolerances of one code are of the same issues."""
    names = ("128,8,1", "128,8,3", "96,8,2,real", "64,10,0")
    found = run_one(source, tmp_path / "out", alphas=(), settings=names)
    params = [row.params for row in found.protected]
    assert [(p.code_width, p.alpha, p.tolerance, str(p.structure)) for p in params] == [
        (128, 8, 1, "quaternionic"), (128, 8, 3, "quaternionic"), (96, 8, 2, "real"),
        (64, 10, 0, "quaternionic"),
    ]  # fmt: skip
    assert [row.setting for row in found.protected] == [
        "N128 alpha8 int8", "N128 alpha8 int8", "N96 real alpha8 int8", "N64 alpha10 int8",
    ]  # fmt: skip
    refused = [row.fnmr.errors for row in found.protected]
    assert refused[1] < refused[0]
    again = run_one(source, tmp_path / "out", alphas=(), settings=names)
    assert told(again) == told(found)


def test_a_wider_code_accepts_more(source, tmp_path):
    """At the same weight and tolerance, with genuine faces some 50 degrees apart."""
    found = run_one(source, tmp_path / "out", alphas=(), settings=("64,8,1", "128,8,1", "256,8,1"))
    refused = [row.fnmr.errors for row in found.protected]
    assert refused[0] > refused[1] > refused[2]


@pytest.mark.parametrize(
    "text",
    ["", "1024", "64,8", "64,8,1,real,1", "64,eight,1", "64,-8,1", "usual", "64,8,1,odd", "0,8,1"],
)
def test_what_names_no_setting_is_refused(source, tmp_path, text):
    answer = ironmask("evaluate", source, tmp_path / "out", "--setting", text)
    assert (answer.code, len(answer.errors)) == (2, 1), answer.err
    assert "setting" in answer.errors[0] or "structure" in answer.errors[0]


@pytest.mark.slow
def test_without_a_setting_the_presets_are_compared(source, tmp_path):
    found = run_one(source, tmp_path / "out", alphas=())
    assert [row.params for row in found.protected] == [preset(name, N) for name in PRESETS]


def test_an_evaluation_of_a_release_before_is_continued_as_it_began(source, tmp_path):
    """It knows neither structures nor named settings: its helpers were real."""
    asked = {"alphas": (6, 8), "tolerance": 2, "executor": "local", "seed": SEED}
    asked |= {"source": str(source), "out": str(tmp_path / "out")}
    prepared = job.prepare(assembled(EvaluateRequest, asked))
    plain = json.loads(prepared.evaluation.to_json())
    before = {name: value for name, value in plain.items() if name not in ("structure", "named")}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_text(json.dumps(before))
    found = run(source, tmp_path / "out")
    assert {str(row.params.structure) for row in found.cases[0].protected} == {"real"}
    assert frozen.plain(found.evaluation).keys() == before.keys()
    answer = ironmask("evaluate", source, tmp_path / "out", "--setting", "128,8,1")
    assert (answer.code, len(answer.errors)) == (1, 1)
    assert "alphas, tolerance, named differ" in answer.errors[0]


def test_differences_need_thirty_impostors(tmp_path, rng):
    """At the recogniser's threshold: with fewer, the threshold is an accident."""
    names, images, vectors = people(rng, noise=2.0)
    source = stored(tmp_path / "s.parquet", names, images, vectors)
    found = run(source, tmp_path / "out", alphas=(3, 16), tolerance=0)
    (case,) = found.cases
    for row in case.protected:
        accepted = case.scores.accepted(row.same.threshold)
        assert (row.against is None) == (accepted < 30)
    assert {row.against is None for row in case.protected} == {True, False}
    table = tables.tables(found)["protected"]
    told = dict(zip(table["alpha"].to_pylist(), table["difference"].to_pylist(), strict=True))
    assert told[16] is None
    assert isinstance(told[3], float)
    sheet = next(
        made
        for made in sheets.sheets(found, cost.measure(found.evaluation, None, "here"))
        if made.title == "Protected templates"
    )
    assert "not supported" in sheet.rows[-1]


def test_first_images_make_one_template(source, tmp_path):
    single = run_one(source, tmp_path / "one", protocols=("first:1",))
    several = run_one(source, tmp_path / "three", protocols=("first:3",))
    assert (single.templates, several.templates) == (SUBJECTS, SUBJECTS)
    assert (single.genuine, several.genuine) == (SUBJECTS * 3, SUBJECTS)
    assert several.impostor == SUBJECTS * (SUBJECTS - 1)
    rates = [[row.fnmr.value for row in found.protected] for found in (single, several)]
    assert np.mean(rates[1]) < np.mean(rates[0])


@pytest.mark.slow
def test_one_pass_over_numbers_of_faces_and_centrings(source, tmp_path):
    """The same probes for each number of faces; one face has nothing to centre."""
    found = run(
        source, tmp_path / "out", protocols=("first:1-3",), centrings=("mean", "regression")
    )
    names = [case.case.name for case in found.cases]
    assert names == [
        "first:1/3", "first:2/3, mean", "first:2/3, regression", "first:3/3, mean",
        "first:3/3, regression",
    ]  # fmt: skip
    assert {(case.templates, case.genuine) for case in found.cases} == {(SUBJECTS, SUBJECTS)}
    alone = run_one(source, tmp_path / "alone", protocols=("first:3",))
    assert [r.fnmr.errors for r in found.cases[3].cosine] == [r.fnmr.errors for r in alone.cosine]
    told_of = [told(case) for case in found.cases]
    assert told_of[3] != told_of[4]
    assert found.cases[3].protected[0].fnmr.errors < found.cases[0].protected[0].fnmr.errors
    page.write(found, cost.measure(found.evaluation, None, "here"), FsspecStore())
    rows = duckdb.sql(f"SELECT protocol, centring FROM '{tmp_path}/out/protected.parquet'")
    assert set(rows.fetchall()) == {
        ("first:1/3", None), ("first:2/3", "mean"), ("first:2/3", "regression"),
        ("first:3/3", "mean"), ("first:3/3", "regression"),
    }  # fmt: skip
    text = (tmp_path / "out" / "report.html").read_text()
    assert "TAR by templates" in text
    assert "AF+C+I" in text


def test_failures_are_counted_by_reason_and_folded_in(tmp_path, rng):
    """Four of 120 faces were not acquired, three of them all of one person."""
    names, images, vectors = people(rng, each=3, subjects=40)
    kept = [None if row in (0, 1, 2, 5) else v for row, v in enumerate(vectors.astype(np.float32))]
    reasons = ["no_face" if row < 5 else None for row in range(len(kept))]
    columns = {"subject_id": names, "image": images, "reason": reasons, "embedding": kept}
    path = tmp_path / "failed.parquet"
    pq.write_table(pa.table(columns), path)
    found = run(path, tmp_path / "out")
    failed = found.failures
    assert failed.reasons == {"no_face": 3, "no_embedding": 1}
    assert (failed.fta, failed.fte) == (4 / 120, 1 / 40)
    sheet = next(
        sheet
        for sheet in sheets.sheets(found, cost.measure(found.evaluation, None, "here"))
        if sheet.title == "Failures folded in"
    )
    for cells, row in zip(sheet.rows, found.cases[0].protected, strict=True):
        expected = failed.fta + row.fnmr.value * (1 - failed.fta)
        if row.fnmr.supported:
            assert float(cells[sheet.columns.index("FRR")]) == pytest.approx(expected, rel=0.01)


def test_any_order_of_blocks_and_any_interruption_give_the_same(source, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "_BLOCK", 16)
    whole = run_one(source, tmp_path / "whole")
    asked = {"alphas": (6, 8), "tolerance": 2, "executor": "local", "seed": SEED}
    asked |= {"source": str(source), "out": str(tmp_path / "cut")}
    request = assembled(EvaluateRequest, asked)
    prepared = job.prepare(request)
    work = block_work(prepared.storage.public(), prepared.evaluation)
    with job.opened(request, prepared) as engine:
        assert list(engine.run(work, [5, 0, 3])) == [5, 0, 3]
    # A kill between the two files of a block leaves the first.
    lost = next((tmp_path / "cut" / "blocks").glob("000003.counts.parquet"))
    lost.unlink()
    assert blocks.done(prepared.evaluation, prepared.sources.store) == {0, 5}
    resumed = run_one(source, tmp_path / "cut")
    assert told(resumed) == told(whole)
    assert [str(r) for r in resumed.cosine] == [str(r) for r in whole.cosine]
    assert [str(r) for r in resumed.protected] == [str(r) for r in whole.protected]


@pytest.mark.slow
def test_another_seed_draws_other_codewords(source, tmp_path):
    one, other = run_one(source, tmp_path / "a"), run_one(source, tmp_path / "b", seed="01" * 32)
    assert [r.fnmr.errors for r in one.cosine] == [r.fnmr.errors for r in other.cosine]
    assert told(one) != told(other)


def pairs_file(folder: Path, lines) -> Path:
    path = folder / "pairs.txt"
    path.write_text("\n".join(["2\t3", *("\t".join(map(str, line)) for line in lines)]) + "\n")
    return path


def test_a_list_of_pairs(source, tmp_path):
    lines = [
        ("p000", 1, 2),
        ("p001", 1, 3),
        ("p000", 1, "p001", 1),
        ("p002", 2, "p003", 4),
        ("p999", 1, 2),
    ]
    found = run_one(source, tmp_path / "out", protocols=(str(pairs_file(tmp_path, lines)),))
    assert (found.genuine, found.impostor) == (2, 2)


def assert_refused(source: Path, protocol: Path, says: str) -> None:
    """By one line, with nothing written."""
    out = protocol.with_name("out")
    answer = ironmask("evaluate", source, out, "--executor", "local", "--protocol", protocol)
    assert (answer.code, len(answer.errors)) == (1, 1), answer.err
    assert says in answer.errors[0]
    assert not out.exists()


def roles_file(folder: Path, lines) -> Path:
    path = folder / "roles.csv"
    path.write_text("image,role,template\n" + "\n".join(lines) + "\n")
    return path


def test_a_file_of_roles_is_what_first_images_are(source, tmp_path):
    """The same faces in the same roles as `first:3`, and a subject with two templates."""
    faces = [
        f"p{n:03d}_{i:04d},{'enrol' if i < 4 else 'probe'},"
        for n in range(30)
        for i in (1, 2, 3, 4)
    ]
    found = run_one(source, tmp_path / "out", protocols=(str(roles_file(tmp_path, faces)),))
    assert told(found) == told(run_one(source, tmp_path / "first", protocols=("first:3",)))
    two = ["p000_0001,enrol,a", "p000_0002,enrol,b", "p000_0003,probe,", "p001_0001,probe,"]
    found = run_one(source, tmp_path / "two", protocols=(str(roles_file(tmp_path, two)),))
    assert (found.templates, found.genuine, found.impostor) == (2, 2, 2)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["p000_0001,enrol,", "p000_0002,asked,"], "line 3: role 'asked'"),
        (["p000_0001,enrol,", "p900_0001,probe,"], "line 3: the source has no image"),
        (["p000_0001,enrol,"], "of role probe"),
        (["p000_0001,enrol,t", "p001_0001,enrol,t", "p002_0001,probe,"], "several subjects"),
        (["p000_0001,enrol,", "p000_0001,probe,"], "compared with itself"),
        (["p000_0001,enrol,", "p001_0001,probe,"], "no comparison is genuine"),
        (["p000_0001,enrol,", "p000_0002,probe,"], "every comparison is genuine"),
    ],
)
def test_roles_that_cannot_be_right_are_refused(lines, says, source, tmp_path):
    assert_refused(source, roles_file(tmp_path, lines), says)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([("p000", 1, "p000", 2), ("p001", 1, "p002", 1), ("p001", 1, 2)], "contradict 1 of 3"),
        ([("p000", 1, 2)], "no pair is impostor"),
        ([("p000", 1, "p001", 2)], "no pair is genuine"),
        ([("p900", 1, 2)], "none of its 1 pairs"),
        ([("p000", 1)], "line 2"),
        ([("p000", "one", "two")], "image numbers"),
    ],
)
def test_a_list_that_cannot_be_right_is_refused(lines, says, source, tmp_path):
    assert_refused(source, pairs_file(tmp_path, lines), says)


def test_what_is_no_evaluation_is_refused(source, tmp_path, rng):
    names, images, vectors = people(rng)
    alone = stored(tmp_path / "alone.parquet", images, images, vectors)
    one = stored(tmp_path / "one.parquet", ["p"] * len(images), images, vectors)
    twice = stored(tmp_path / "twice.parquet", names, [images[0], *images[:-1]], vectors)
    cases = [
        ((alone,), 1, "no comparison is genuine"),
        ((one,), 1, "every comparison is genuine"),
        ((twice,), 1, "twice"),
        ((source, "--exclude", _list(tmp_path, "nobody")), 1, "'nobody'"),
        ((source, "--protocol", "first:9"), 1, "no subject has 9 faces"),
        ((source, "--protocol", "first:3/2"), 2, "probes as well"),
        ((source, "--protocol", "first:3-2"), 2, "spans nothing"),
        ((source, "--protocol", "some"), 2, "unknown protocol"),
        ((source, "--alpha", 0), 2, "alpha is 0"),
        ((source, "--encoding", "int2"), 2, "unknown encoding"),
        ((source, "--centring", "median"), 2, "unknown centring"),
        ((source, "--demographics", "age"), 1, "lacks the column age"),
        ((source, "--seed", "12"), 2, "64 hexadecimal"),
        ((tmp_path / "none.parquet",), 1, "none.parquet"),
    ]
    for number, ((given, *options), code, says) in enumerate(cases):
        out = tmp_path / f"out{number}"
        answer = ironmask("evaluate", given, out, "--executor", "local", *options)
        assert (answer.code, len(answer.errors)) == (code, 1), answer.err
        assert says in answer.errors[0]
        assert not out.exists()


def test_another_evaluation_in_the_same_place_is_refused(source, tmp_path):
    run_one(source, tmp_path / "out")
    answer = ironmask("evaluate", source, tmp_path / "out", "--executor", "local", "--alpha", 10)
    assert answer.code == 1
    assert "alphas, tolerance differ" in answer.errors[0]


def test_bad_embeddings_are_left_out_and_counted(tmp_path, rng):
    names, images, vectors = people(rng)
    vectors[3], vectors[7] = np.nan, 0
    found = run(stored(tmp_path / "bad.parquet", names, images, vectors), tmp_path / "out")
    assert found.failures.reasons == {"not_finite": 1, "zero_norm": 1}
    assert found.faces == SUBJECTS * EACH - 2


def test_absent_and_shorter_embeddings_are_left_out_and_counted(tmp_path, rng):
    names, images, vectors = people(rng)
    kept = [*vectors.astype(np.float32)]
    kept[2], kept[9] = None, kept[9][:10]
    path = tmp_path / "short.parquet"
    pq.write_table(pa.table({"subject_id": names, "image": images, "embedding": kept}), path)
    found = run(path, tmp_path / "out")
    assert found.failures.reasons == {"no_embedding": 1, "wrong_width": 1}
    assert found.faces == SUBJECTS * EACH - 2


def test_groups_are_compared_among_themselves(tmp_path, rng):
    names, images, vectors = people(rng)
    group = ["even" if int(name[1:]) % 2 == 0 else "odd" for name in names]
    path = stored(tmp_path / "g.parquet", names, images, vectors, sex=group)
    found = run_one(path, tmp_path / "out", groups=("sex",))
    cosine = {row.group: row for row in found.groups if row.what == "cosine"}
    half = SUBJECTS // 2
    for row in cosine.values():
        assert row.subjects == half
        assert row.fmr.trials == half * (half - 1) // 2 * EACH * EACH
    assert sum(row.fnmr.trials for row in cosine.values()) == found.genuine


def test_the_report_asks_for_nothing_and_escapes_names(tmp_path, rng):
    names, images, vectors = people(rng)
    folder = tmp_path / "a<b>&c"
    folder.mkdir()
    out = tmp_path / "out"
    found = run(stored(folder / "p.parquet", names, images, vectors), out)
    written = page.write(found, cost.measure(found.evaluation, None, "here"), FsspecStore())
    text = (out / "report.html").read_text()
    assert "a&lt;b&gt;&amp;c" in text
    assert "<b>" not in text
    assert not re.search(r'(?:src|href)\s*=\s*"(?!#|data:,)', text)
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert text.count("<svg") == 5
    assert "unsupported" in text
    for path in written[1:]:
        rows = duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall()[0][0]
        assert rows > 0
    columns = "code_width, structure, alpha, tolerance, fmr_errors"
    rows = duckdb.sql(f"SELECT {columns} FROM '{out}/protected.parquet'")
    expected = [
        (r.params.code_width, str(r.params.structure), r.params.alpha, r.params.tolerance,
         r.fmr.errors)
        for r in found.cases[0].protected
    ]  # fmt: skip
    assert rows.fetchall() == expected


@pytest.mark.slow
def test_the_command_line_prints_tables_and_json(source, tmp_path):
    asked = ("evaluate", source, tmp_path / "out", "--executor", "local", "--alpha", 8)
    answer = ironmask(*asked, "--json")
    assert answer.code == 0
    told = answer.json()
    assert [row["alpha"] for row in told["protected"]] == [8] * 4
    trials = {row["target_fmr"]: row["fmr_trials"] for row in told["recogniser"]}
    assert trials == dict.fromkeys((1e-2, 1e-3, 1e-4, 1e-5, 1e-6), ONCE - GENUINE)
    assert told["headline"].startswith("N64 alpha8 int8 with tolerance 3 (")
    again = ironmask(*asked)
    assert again.code == 0
    assert "Protected templates" in again.out
    assert told["headline"] in " ".join(again.out.split())
    assert "report.html" in again.err


def test_nothing_secret_is_kept(source, tmp_path):
    """Only numbers of faces, cosines and agreements, and the seed of codewords that are gone."""
    run_one(source, tmp_path / "out")
    names = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {".json", ".parquet"}
    columns = set(pq.read_table(tmp_path / "out/blocks/000000.matches.parquet").column_names)
    assert columns == {"genuine", "template", "probe", "cosine", "agreement_0", "agreement_1",
                       "tolerances_0", "tolerances_1"}  # fmt: skip
    kept = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert kept["seed"] == SEED


@pytest.mark.slow
def test_from_a_bucket_into_a_bucket(source, bucket, s3, tmp_path, monkeypatch):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    store = FsspecStore(StorageSettings())
    store.write(f"{bucket}/faces.parquet", source.read_bytes())
    exclude = f"{bucket}/exclude.txt"
    store.write(exclude, b"p003_0002\n")
    remote = run(f"{bucket}/faces.parquet", f"{bucket}/out", exclude=exclude)
    here = run_one(source, tmp_path / "out", exclude=str(_list(tmp_path, "p003_0002")))
    assert told(remote.cases[0]) == told(here)
    spent = cost.measure(remote.evaluation, None, "here")
    assert f"{bucket}/out/report.html" in page.write(remote, spent, store)
    assert b"<svg" in store.read(f"{bucket}/out/report.html")
