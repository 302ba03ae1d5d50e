"""`ironmask plan-capacity` and the short form of a dry run: measured, and nothing written."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.command import Answer, ironmask
from support.enrolling import ALPHA, TOLERANCE, WIDTH, enroll, several
from support.shared import shared_or_skipped

from pipelines.capacity.figures import Cost
from pipelines.capacity.measure import Told, measured, steady
from pipelines.capacity.rehearsal import Script
from pipelines.capacity.sample import Sample
from pipelines.plan.arrange import SCHEMA
from pipelines.run.work import Hosted, Work

SETTINGS = (f"--alpha={ALPHA}", f"--tolerance={TOLERANCE}", "--shard-size=16", "--executor=local")
PRICES = "[nodes.cpu]\ncpus = 4\nhour = 1.0\n[nodes.gpu]\ncpus = 4\ngpus = 1\nhour = 3.0\n"


def asked(source: Path, *more: object) -> Answer:
    return ironmask("plan-capacity", source, source.parent / "table", *SETTINGS, *more)


def test_it_is_measured_here_and_nothing_is_left(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    source = several(tmp_path / "e.parquet", 40)
    (tmp_path / "prices.toml").write_text(PRICES)
    words = ("--prices", tmp_path / "prices.toml", "--save", tmp_path / "figures.json")
    answer = asked(source, *words, "--json")
    assert answer.code == 0, answer.err
    found = answer.json()
    assert found["load"]["inputs"] == found["load"]["todo"] == 80
    assert (found["load"]["subjects"], found["load"]["shards"]) == (40, 5)
    assert found["cpu_seconds"] > 0
    assert found["stored"] > 40 * 1024
    assert [(one["node"]["name"], one["count"]) for one in found["outlooks"]] == [
        (name, count) for name in ("cpu", "gpu") for count in (1, 10, 100)
    ]
    assert all(one["price"] > 0 for one in found["outlooks"])
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"tmp", "e.parquet", "prices.toml", "figures.json"}
    assert not any((tmp_path / "tmp").iterdir())
    kept = json.loads((tmp_path / "figures.json").read_text())
    assert kept["settings"]["n"] == WIDTH
    assert kept["template"]["cpu"] > 0
    # With the same figures it is the same, but for what planning took.
    again = asked(source, "--figures", tmp_path / "figures.json", "--json").json()
    assert again["stored"] == found["stored"]


def test_people_read_it_as_tables(tmp_path: Path) -> None:
    source = several(tmp_path / "e.parquet", 40)
    (tmp_path / "prices.toml").write_text(
        "currency = 'EUR'\n" + PRICES + "[store]\ngib_month = 9\n"
    )
    answer = asked(source, "--prices", tmp_path / "prices.toml", "--hours=2")
    assert answer.code == 0, answer.err
    for part in ("80, of which 80 need work", "40 in 5 shards", "bound by", "EUR", "storage"):
        assert part in answer.out
    assert answer.out.count("workers") >= 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--nodes=2", "--hours=3"), "give one of them"),
        (("--figures=nowhere.json",), "no such file of figures"),
        (("--prices=nowhere.toml",), "no such file of prices"),
    ],
)
def test_what_cannot_be_said_is_one_line(tmp_path: Path, more, said) -> None:
    answer = asked(several(tmp_path / "e.parquet", 3), *more)
    assert answer.code in (1, 2)
    assert len(answer.errors) == 1
    assert said in answer.errors[0]


def test_a_dry_run_tells_the_short_form(tmp_path: Path) -> None:
    source = several(tmp_path / "e.parquet", 40)
    answer = enroll(source, tmp_path / "d", "--dry-run", "--json")
    told = answer.json()["capacity"]
    assert told["cpu_seconds"] > 0
    assert told["workers"] == 1
    assert told["stored"] > 40 * 1024
    said = enroll(source, tmp_path / "d", "--dry-run").out
    assert "processors" in said
    assert "with 1 workers" in said
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
def test_photos_are_measured_with_the_model(tmp_path: Path) -> None:
    shared = shared_or_skipped()
    faces = shared / "faces" / "lfw_dev"
    for person in sorted(faces.iterdir())[:20]:
        (tmp_path / "photos" / person.name).mkdir(parents=True)
        for photo in list(person.iterdir())[:2]:
            os.link(photo, tmp_path / "photos" / person.name / photo.name)
    model = f"--model={shared / 'models' / 'buffalo_sc'}"
    answer = ironmask(
        "plan-capacity", tmp_path / "photos", tmp_path / "t", model, "--executor=local", "--json",
        "--save", tmp_path / "f.json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    kept = json.loads((tmp_path / "f.json").read_text())
    assert kept["photo"]["cpu"] > kept["template"]["cpu"] / 100
    assert answer.json()["load"]["photos"] is True
    brief = ironmask(
        "enroll", tmp_path / "photos", tmp_path / "t", model, "--executor=local", "--dry-run",
        "--json",
    )  # fmt: skip
    assert brief.json()["capacity"]["cpu_seconds"] > 0


def rows(count: int, **columns) -> pa.Table:
    made = {field.name: pa.nulls(count, field.type) for field in SCHEMA}
    made |= {"uri": pa.array([f"u{number}" for number in range(count)])}
    return pa.table({**made, **columns}).cast(SCHEMA)


def test_a_sample_is_of_open_inputs_alone_and_of_all_of_them_alike() -> None:
    outcome = pa.array([None if number % 2 else "skipped" for number in range(100)])
    address = pa.array([None if number > 9 else "keyed" for number in range(100)])
    counts: dict[str, int] = {}
    for _ in range(150):
        sample = Sample(9)
        table = rows(100, outcome=outcome, address=address)
        for start in range(0, 100, 30):
            sample.look(table.slice(start, 30))
        assert len(set(sample.addresses)) == 9
        for found in sample.addresses:
            counts[found] = counts.get(found, 0) + 1
    assert counts.keys() == {f"u{number}" for number in range(11, 100, 2)}
    assert 4 < min(counts.values()) < max(counts.values()) < 75
    few = Sample(9)
    few.look(rows(3))
    few.look(rows(0))
    assert sorted(few.addresses) == ["u0", "u1", "u2"]


def told(process: int, before: float, cpu: float) -> Told:
    return Told(None, process, before, Cost(cpu, 2 * cpu))


def test_the_first_unit_of_a_process_is_its_start() -> None:
    found = steady([told(1, 3.0, 9.0), told(1, 12.0, 1.0), told(2, 4.0, 8.0), told(2, 12.0, 1.0)])
    assert found.unit == Cost(1.0, 2.0)
    assert found.first == pytest.approx(11.0)
    assert found.each(4) == Cost(0.25, 0.5)
    late = [replace(one, at=30.0) for one in (told(1, 3.0, 9.0), told(1, 12.0, 1.0))]
    assert steady(late, begun=10.0).start == pytest.approx(18.0)


def test_where_each_process_did_one_unit_these_are_what_there_is() -> None:
    found = steady([told(1, 3.0, 2.0), told(2, 5.0, 2.0)])
    assert found.unit == Cost(2.0, 4.0)
    assert found.first == pytest.approx(4.0)


def test_what_this_process_did_before_is_nobodys_start() -> None:
    assert steady([told(os.getpid(), 50.0, 2.0)]).first == 0.0


def test_measured_work_is_the_same_work() -> None:
    work = measured(Work(np.add, (3,), memory=7, hosted=Hosted(np.add, np.add)))
    found = work.function(*work.common, 4)
    assert (found.result, found.process, work.memory, work.hosted) == (7, os.getpid(), 7, None)
    assert found.cost.wall >= 0


def test_a_script_has_whole_subjects_and_fits_a_disk(tmp_path: Path) -> None:
    from support.destinations import job

    from pipelines.capacity.estimate import Load

    load = Load(10_000, 9_000, 3_000, 40, photos=False)
    script = Script.of(job(), load, 2)
    assert (script.shards, script.each) == (6, 3)
    assert script.shard_size % 3 == 0
    assert script.subjects == 6 * script.shard_size // 3
    assert Script.of(job(), load, 10**6).shard_size <= 18
