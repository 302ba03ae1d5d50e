"""What version 0.1.0 wrote, in the hands of the code as it is now.

`make_tables.py` made the archives in `v0_1`; it says what each holds. Here they are read, checked,
resumed, evaluated, audited, re-protected and erased by the command line. Sources of embeddings lie
at the addresses that they had then, on a real S3 server; tables are unpacked in a folder, as moved
ones, but for two that lie in a bucket again.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable
from support.command import Answer, ironmask
from support.marks import slow

ARCHIVES = Path(__file__).with_name("v0_1")
BUCKET = "ironmask-v0-1"
SOURCE = f"s3://{BUCKET}/inputs/enrolled/gallery.parquet"
PROBES = f"s3://{BUCKET}/inputs/probes/gallery.parquet"
EACH = 4
# Of 24 people the last has no embedding that is one.
PEOPLE = [f"s{number:03d}" for number in range(23)]
ERASED = "s003"
OTHERS = [name for name in PEOPLE if name != ERASED]
FIRST_SCHEME = (1, None, None)
LATER = {"code_width", "structure", "conditioner", "own_secret"}
ENCODINGS = ["int8", "float32", "float16", "bits6", "bits5", "bits4"]
FEW = PEOPLE[:2]
SEED = f"--seed={'5d' * 32}"
STATES = ["preparing", "live", "retired", "destroyed"]
SETTINGS = ["--alpha=12", "--tolerance=1", "--shard-size=8", "--executor=local"]
# What the first plan of everybody holds, and what became of it.
OUTCOMES = {
    ("used", ""): 77,
    ("failed", "wrong_width"): 15,
    ("failed", "not_finite"): 1,
    ("failed", "zero_norm"): 1,
    ("duplicate", "duplicate_content"): 1,
    ("duplicate", "duplicate_other_subject"): 1,
    ("skipped", "no_subject"): 1,
}


@dataclass(frozen=True)
class Case:
    """A case in a folder of its own; its name there is what it was below the bucket."""

    folder: Path
    name: str

    @property
    def table(self) -> Path:
        return self.folder / "table"

    @property
    def keys(self) -> str:
        return f"--keys={self.folder / 'table.keys.json'}"

    def run(self, command: str, *more: object) -> Answer:
        """A command on the table."""
        return ironmask(command, self.table, self.keys, *more)

    def renew(self, command: str, *more: object) -> Answer:
        return self.run(command, "--executor=local", *more)

    def enroll(self, *more: object, source: object = SOURCE) -> Answer:
        """The enrolment as it was asked for then."""
        return ironmask("enroll", source, self.table, self.keys, *SETTINGS, *more)


def files_of(name: str) -> dict[str, bytes]:
    """The files of a case by their names."""
    with zipfile.ZipFile(ARCHIVES / f"{name}.zip") as archive:
        found = {member: archive.read(member) for member in archive.namelist()}
    if "base.json" not in found:
        return found
    based = json.loads(found.pop("base.json"))
    whole = {**files_of(based["base"]), **found}
    return {name: content for name, content in whole.items() if name not in based["lacking"]}


def accepted(case: Case, subject: str, probes: Any) -> list[bool]:
    """Whether embeddings, (k, n), match what is live of a person.

    The command line verifies photos alone: this is the one place that needs more of the software.
    """
    from support.table import verified

    return verified(case.table, subject, probes)


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the user reaches a test, and no test leaves keys in the user's folders."""
    for name in list(os.environ):
        if name.startswith("IRONMASK_") or name == "PREFECT_API_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[str], Case]:
    """Unpacks a case into a folder."""

    def unpack(name: str) -> Case:
        for member, content in files_of(name).items():
            path = tmp_path / "case" / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            # Keys that others could read are refused.
            path.chmod(0o600)
        return Case(tmp_path / "case", name)

    return unpack


@pytest.fixture
def complete(unpacked: Callable[[str], Case]) -> Case:
    return unpacked("complete")


@pytest.fixture
def sources(s3: Any, _own_environment: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sources of embeddings, at their addresses, and nothing else in the bucket."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    client = s3.client()
    with suppress(ClientError):
        client.create_bucket(Bucket=BUCKET)
    for key in list(keys_below(client, "")):
        client.delete_object(Bucket=BUCKET, Key=key)
    put(client, "inputs", files_of("inputs"))
    return client


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """What was enrolled, in a local file of the same name."""
    path = tmp_path / "enrolled" / "gallery.parquet"
    path.parent.mkdir()
    path.write_bytes(files_of("inputs")["enrolled/gallery.parquet"])
    return path


@pytest.fixture(scope="session")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with embeddings that were not enrolled, two or four a person among them."""
    path = tmp_path_factory.mktemp("probes") / "gallery.parquet"
    path.write_bytes(files_of("inputs")["probes/gallery.parquet"])
    return path


@pytest.fixture(scope="session")
def faces(probes: Path) -> dict[str, Any]:
    """A probe of each person: the mean of three captures, (n,)."""
    rows = pq.read_table(probes)
    vectors = np.array(rows["embedding"].to_pylist()).reshape(-1, EACH, 64)[:, : EACH - 1]
    return dict(zip(rows["subject_id"].to_pylist()[::EACH], vectors.mean(axis=1), strict=True))


def keys_below(client: Any, prefix: str) -> Iterator[str]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        yield from (item["Key"] for item in page.get("Contents", []))


def put(client: Any, case: str, files: dict[str, bytes]) -> None:
    """Upload what a case had in the bucket: everything but the files beside its table."""
    for name, content in files.items():
        if "/" in name or case == "inputs":
            client.put_object(Bucket=BUCKET, Key=f"{case}/{name}", Body=content)


def fetch(client: Any, case: Case) -> None:
    """Put what is in the bucket of a case in the place of what is in its folder."""
    for path in [p for p in case.table.rglob("*") if p.is_file()]:
        path.unlink()
    for key in keys_below(client, f"{case.name}/table/"):
        path = case.folder / key.removeprefix(f"{case.name}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())


def rows(case: Case, name: str) -> list[dict[str, Any]]:
    """The rows that the log of a table lists, by a reader that is not under test."""
    found = []
    for path in listed(case, name):
        own = pq.ParquetFile(case.table / name / path).read().to_pylist()
        of = re.match(r"generation=(\d+)/", path)
        found += [{**row, "generation": int(of[1])} for row in own] if of else own
    return found


def states(case: Case) -> dict[int, str]:
    """How far each generation has come."""
    found = sorted(rows(case, "generations"), key=lambda row: STATES.index(row["state"]))
    return {row["generation"]: row["state"] for row in found}


def live(case: Case) -> list[dict[str, Any]]:
    """The live templates, in the order of their subjects."""
    (number,) = [n for n, state in states(case).items() if state == "live"]
    found = [row for row in rows(case, "templates") if row["generation"] == number]
    return sorted(found, key=lambda row: row["subject_id"])


def schemes(case: Case) -> set[tuple[Any, ...]]:
    """Version, code width and structure of the live templates."""
    names = ("scheme_version", "code_width", "structure")
    return {tuple(row.get(name) for name in names) for row in live(case)}


def by_the_log(case: Case, name: str) -> pa.Table:
    """The rows of a table as readers find them that go by the columns that its log names."""
    return pa.table(DeltaTable(case.table / name).to_pyarrow_table())


def ids(found: list[dict[str, Any]]) -> set[str]:
    return {row["template_id"] for row in found}


def runs(case: Case) -> list[tuple[str, str]]:
    """Kind and last state of each run, in their order."""
    order = {"running": 0, "complete": 1, "closed": 1}
    found = sorted(rows(case, "runs"), key=lambda row: (order[row["state"]], row["at"]))
    newest = {row["run_id"]: (row["kind"], row["state"]) for row in found}
    return list(newest.values())


def outcomes(case: Case) -> Counter[tuple[str, str]]:
    return Counter((row["outcome"], row["reason"]) for row in rows(case, "inputs"))


def data_files(case: Case, name: str) -> set[str]:
    """Every Parquet file under a table, listed by its log or not."""
    base = case.table / name
    found = (path.relative_to(base).as_posix() for path in base.rglob("*.parquet"))
    return {path for path in found if not path.startswith("_delta_log")}


def listed(case: Case, name: str) -> set[str]:
    """The files of a table that its log lists."""
    return set(pa.table(DeltaTable(case.table / name).get_add_actions())["path"].to_pylist())


def key_states(case: Case) -> dict[int, str]:
    """What the keyset file says of each generation's keys."""
    found = json.loads((case.folder / "table.keys.json").read_text())["generations"]
    return {int(number): entry["state"] for number, entry in found.items()}


def all_bytes(case: Case) -> bytes:
    """All bytes of a table, and all values of its Parquet files."""
    found = []
    for path in sorted(p for p in case.table.rglob("*") if p.is_file()):
        found.append(path.read_bytes())
        if path.suffix == ".parquet":
            found.append(repr(pq.ParquetFile(path).read().to_pylist()).encode())
    return b"\0".join(found)


def assert_verified(
    case: Case, faces: dict[str, Any], people: list[str] = PEOPLE, step: int = 5
) -> None:
    """Each person has one live row, which their own probe matches and somebody else's does not.

    step: of so many people the first is asked for.
    """
    assert [row["subject_id"] for row in live(case)] == people
    for name, other in list(zip(people, [*people[1:], people[0]], strict=True))[::step]:
        pair = np.stack([faces[name], faces[other]]).astype(np.float32)
        assert accepted(case, name, pair) == [True, False], name


def assert_sound(
    case: Case,
    faces: dict[str, Any],
    people: list[str] = PEOPLE,
    *,
    plans_erased: int = 0,
    step: int = 5,
) -> None:
    """What must hold of every table that no run works on."""
    assert_verified(case, faces, people, step)
    checked = case.run("check", "--deep", "--json")
    assert checked.code == 0, checked.out
    found = checked.json()
    assert found["sound"]
    assert found["findings"] == []
    assert len(found["notes"]) == plans_erased
    assert all(note.endswith("went with a person who was erased") for note in found["notes"])
    assert (found["templates"], found["helpers_opened"]) == (len(people), len(people))
    assert len(rows(case, "templates")) == len(people)
    for name in ("templates", "inputs", "vault"):
        assert data_files(case, name) == listed(case, name), name


def resumed_or_refused(case: Case, answer: Answer) -> bool:
    """Whether a run went on. It must unless the code that shapes the rows has another version."""
    same = all(version(name) == then for name, then in written_by(case).items())
    if same:
        assert answer.code in (0, 3), answer.err
    else:
        assert answer.code == 1
        assert "started with another code" in answer.errors[0]
        assert "--restart" in answer.errors[0]
    return same


def written_by(case: Case) -> dict[str, str]:
    """Versions of the code that the newest run was started with."""
    begun = [row for row in rows(case, "runs") if row["state"] == "running"]
    found = sorted(begun, key=lambda row: row["at"])
    versions: dict[str, str] = json.loads(found[-1]["versions"])
    assert versions["ironmask"] == "0.1.0"
    return versions


class TestComplete:
    """Two enrolments with a vault, and an evaluation of the table."""

    def test_it_is_read_and_verified(self, complete, faces):
        assert_sound(complete, faces, step=1)
        assert outcomes(complete) == {**OUTCOMES, ("skipped", "already_enrolled"): 80}
        assert len(rows(complete, "vault")) == OUTCOMES["used", ""]
        assert sum(row["images_used"] for row in live(complete)) == OUTCOMES["used", ""]
        assert runs(complete) == [("enrol", "complete")] * 2
        assert states(complete) == {1: "live"}

    def test_it_is_told(self, complete):
        found = ironmask("inspect", complete.table, "--json").json()
        (generation,) = found["generations"]
        shown = {name: generation[name] for name in ("state", "templates", "sealed", "model")}
        assert shown == {
            "state": "live", "templates": 23, "sealed": True, "model": "declared:unknown",
        }  # fmt: skip
        assert found["outcomes"] == {"used": 77, "failed": 17, "duplicate": 2, "skipped": 81}
        assert [run["counts"]["inputs"] for run in found["runs"]] == [80, 97]
        assert ironmask("status", complete.table).code == 0
        vacuumed = complete.run("vacuum", "--json").json()
        assert (vacuumed["files"], vacuumed["uploads"]) == (0, 0)

    def test_another_engine_reads_it(self, complete):
        counted = duckdb.sql(
            "SELECT count(*), count(DISTINCT subject_id), sum(images_used), "
            "min(octet_length(helper)) = max(octet_length(helper)) "
            f"FROM read_parquet('{complete.table}/templates/*/*.parquet')"
        ).fetchall()
        assert counted == [(23, 23, 77, True)]

    @pytest.mark.slow
    def test_its_templates_are_compared_as_then(self, complete, probes, tmp_path):
        table = f"--table={complete.table}", complete.keys, SEED, "--executor=local", "--json"
        before = len(rows(complete, "metrics"))
        answer = ironmask("evaluate", probes, tmp_path / "out", *table)
        assert answer.code == 0, answer.err
        found, then = answer.json(), expected(complete)
        del found["files"]
        assert_counts(found, then)
        assert len(rows(complete, "metrics")) > before
        assert complete.run("check", "--deep").code == 0

    def test_it_takes_another_person(self, complete, faces, tmp_path):
        source, someone = tmp_path / "more.parquet", np.random.default_rng(3).standard_normal(64)
        pq.write_table(pa.table({"subject_id": ["t000"], "embedding": [someone]}), source)
        answer = complete.enroll("--vault", "--json", source=source)
        assert answer.code == 0, answer.err
        assert answer.json()["subjects_enrolled"] == 1
        assert_sound(complete, {**faces, "t000": someone}, [*PEOPLE, "t000"], step=1)
        assert schemes(complete) == {FIRST_SCHEME}

    @pytest.mark.slow
    def test_it_takes_another_person_without_any_option(self, complete, faces, tmp_path):
        """Settings that nobody chose are those of the table, whatever is the default by now."""
        source, someone = tmp_path / "more.parquet", np.random.default_rng(3).standard_normal(64)
        pq.write_table(pa.table({"subject_id": ["t000"], "embedding": [someone]}), source)
        answer = ironmask("enroll", source, complete.table, complete.keys, "--executor=local")
        assert answer.code == 0, answer.err
        assert_sound(complete, {**faces, "t000": someone}, [*PEOPLE, "t000"], step=1)
        assert schemes(complete) == {FIRST_SCHEME}
        assert {(row["alpha"], row["tolerance"]) for row in live(complete)} == {(12, 1)}

    def test_readers_of_its_logs_see_what_is_new(self, complete, tmp_path):
        """They go by the columns that a log names, and old files have fewer."""
        assert not LATER & set(by_the_log(complete, "templates").schema.names)
        source, someone = tmp_path / "more.parquet", np.random.default_rng(3).standard_normal(64)
        pq.write_table(pa.table({"subject_id": ["t000"], "embedding": [someone]}), source)
        assert complete.enroll("--vault", source=source).code == 0
        for name, columns in (("templates", LATER | {"details"}), ("inputs", {"details"})):
            found = by_the_log(complete, name)
            assert columns <= set(found.schema.names)
            assert len(found) == len(rows(complete, name))
            kept = {row["subject_id"] for row in found.to_pylist() if row["details"] is not None}
            assert kept == {"t000"}
        told = duckdb.sql(
            "SELECT count(*), count(code_width), count(quality), count(details) FROM read_parquet("
            f"'{complete.table}/templates/*/*.parquet', union_by_name = true)"
        ).fetchall()
        assert told == [(24, 0, 23, 1)]
        assert complete.run("check", "--deep").code == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["source", "vault"])
    @pytest.mark.parametrize("asked", [["--code-width=128"], ["--preset=balanced"]], ids=str)
    def test_it_moves_to_version_2(self, complete, faces, gallery, way, asked):
        before = live(complete)
        more = ["--vault"] if way == "vault" else [f"--source={gallery}"]
        assert complete.renew("reprotect", *more, *asked).code == 0
        assert_renewed(complete, faces, before, 2)
        assert schemes(complete) == {(2, 128, "quaternionic")}
        assert by_the_log(complete, "templates")["code_width"].unique().to_pylist() == [128]
        told = ironmask("inspect", complete.table, "--json").json()["generations"]
        assert [(g["scheme_version"], g["code_width"], g["structure"]) for g in told] == [
            (2, 128, "quaternionic")
        ]
        refused = complete.enroll("--vault", "--code-width=64", source=gallery)
        assert "code_width is 128 there and 64 here" in refused.errors[0]
        for command in ("rekey", "rotate-mac"):
            assert complete.renew(command).code == 0
            assert schemes(complete) == {(2, 128, "quaternionic")}
        assert_sound(complete, faces)

    def test_who_is_there_stays_out(self, complete, gallery):
        before = ids(live(complete))
        answer = complete.enroll("--vault", "--json", source=gallery)
        assert answer.code == 3, answer.err
        found = answer.json()
        assert (found["subjects_enrolled"], found["inputs"]) == (0, 97)
        assert found["reasons"]["already_enrolled"] == 92
        assert ids(live(complete)) == before

    def test_other_settings_are_refused(self, complete, gallery):
        before = live(complete)
        for option, said in (
            ("--alpha=13", "alpha is 12 there and 13 here"),
            ("--tolerance=0", "tolerance is 1 there and 0 here"),
            ("--encoding=bits6", "encoding is int8.1 there and bits6.1 here"),
            ("--centring=regression", "centring is mean there and regression here"),
            ("--model=other", "model is declared:unknown there and declared:other here"),
        ):
            answer = complete.enroll("--vault", option, source=gallery)
            assert answer.code == 1
            assert said in answer.errors[0]
        assert live(complete) == before

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["source", "vault"])
    def test_it_is_re_protected(self, complete, faces, gallery, way):
        """Without options its version stays."""
        before, old = live(complete), data_files(complete, "templates")
        more = ["--vault"] if way == "vault" else [f"--source={gallery}"]
        answer = complete.renew("reprotect", *more, "--json")
        assert answer.code == 0, answer.err
        found = answer.json()
        assert (found["generation"], found["lost"], found["missing"]) == (2, 0, 0)
        assert found["proof"]["files"] == len(old) == 12
        assert_renewed(complete, faces, before, 2)
        assert schemes(complete) == {FIRST_SCHEME}

    @pytest.mark.slow
    @pytest.mark.parametrize("command", ["rekey", "rotate-mac"])
    def test_it_is_rewritten(self, complete, faces, command):
        before = live(complete)
        answer = complete.renew(command, "--json")
        assert answer.code == 0, answer.err
        assert_renewed(complete, faces, before, 2, same=same_ids(command, before))
        assert schemes(complete) == {FIRST_SCHEME}

    @pytest.mark.slow
    def test_its_keys_are_wrapped_anew(self, complete, faces):
        before = (complete.folder / "table.keys.json").read_bytes()
        assert ironmask("rotate-kek", complete.table, complete.keys).code == 0
        vault = f"--keys={complete.folder / 'table.keys.vault.json'}"
        assert ironmask("rotate-kek", complete.table, "--vault", vault).code == 0
        assert (complete.folder / "table.keys.json").read_bytes() != before
        assert_sound(complete, faces)
        assert complete.renew("reprotect", "--vault").code == 0

    @pytest.mark.parametrize("subject", [ERASED, slow("s000"), slow("s022")])
    def test_a_person_is_erased(self, complete, faces, subject):
        (row,) = [row for row in live(complete) if row["subject_id"] == subject]
        words = [subject.encode(), row["template_id"].encode(), row["helper"]]
        before = all_bytes(complete)
        assert all(word in before for word in words)
        answer = complete.run("erase", "--yes", f"--subject={subject}", "--json")
        assert answer.code == 0, answer.err
        (done,) = answer.json()
        assert (done["templates"], done["embeddings"]) == (1, row["images_used"])
        # Who came with the second run is in no other plan.
        assert_erased(complete, faces, subject, 1 if subject == "s022" else 2)
        after = all_bytes(complete)
        assert not [word for word in words if word in after]

    @pytest.mark.slow
    def test_people_of_lost_files_are_enrolled_again(self, complete, faces, gallery):
        damaged, deleted, *_ = sorted((complete.table / "templates").rglob("part-*.parquet"))
        damaged.write_bytes(damaged.read_bytes().replace(b"PAR1", b"PAR2"))
        deleted.unlink()
        answer = complete.renew("repair", f"--source={gallery}", "--json")
        assert answer.code == 0, answer.err
        done = answer.json()
        assert (done["files"], done["without"], done["enrolled"]) == (2, 0, done["lost"])
        assert not damaged.exists()
        assert_sound(complete, faces, step=1)
        assert ironmask("inspect", complete.table, "--json").json()["two_issues"] == done["lost"]

    @pytest.mark.slow
    def test_it_is_audited(self, complete, probes, tmp_path):
        answer = ironmask(
            "audit", complete.table, complete.keys, f"--calibration={probes}",
            f"--out={tmp_path / 'out'}", "--sample=1", "--pairs=10", "--seconds=1",
            "--executor=local", "--json",
        )  # fmt: skip
        assert answer.code == 0, answer.err
        assert answer.json()["attacks"]
        assert complete.run("check", "--deep").code == 0


def expected(case: Case) -> dict[str, Any]:
    """What an evaluation counted then."""
    found: dict[str, Any] = json.loads((case.folder / "expected.json").read_text())
    return found


def assert_counts(found: dict[str, Any], then: dict[str, Any]) -> None:
    """The same counts exactly, and the same rates but for their last digits.

    What follows from few errors is told otherwise since then: their intervals and bounds, and
    differences; and rates of more thresholds are. More is counted. Fresh issues have shorter tags.
    """
    assert found.keys() >= then.keys()
    for name, table in then.items():
        known = {row.get("what") for row in table}
        told = [row for row in found[name] if row.get("what") in known]
        assert len(told) == len(table)
        for new, old in zip(told, table, strict=True):
            for key, value in old.items():
                if value is None or key.endswith(("_low", "_high", "_bound")):
                    continue
                if key in ("difference", "p") and new[key] is None:
                    continue
                if key == "row_bytes":
                    assert 0 < new[key] <= value
                    continue
                close = pytest.approx(value, 1e-6, 1e-9) if isinstance(value, float) else value
                assert new[key] == close, (name, key)


def same_ids(command: str, before: list[dict[str, Any]]) -> set[str]:
    """Templates that keep their ids: where nothing but the MAC key is new."""
    return ids(before) if command == "rotate-mac" else set()


def assert_renewed(
    case: Case,
    faces: dict[str, Any],
    before: list[dict[str, Any]],
    generation: int,
    *,
    same: set[str] | None = None,
) -> None:
    """A new generation is live, and of the one before nothing is left but the proof.

    same: ids of templates that both have; none, if not said.
    """
    assert_sound(case, faces)
    numbers = range(1, generation + 1)
    assert states(case) == {n: "live" if n == generation else "destroyed" for n in numbers}
    assert key_states(case) == states(case)
    after = live(case)
    assert ids(after) & ids(before) == (same or set())
    assert not {row["key_id"] for row in after} & {row["key_id"] for row in before}
    left = all_bytes(case)
    assert not [row["subject_id"] for row in before if row["helper"] in left]
    for number in numbers[:-1]:
        proved = case.run("prove", f"--generation={number}", "--json")
        assert (proved.code, proved.json()["failures"]) == (0, []), proved.out
    assert {state for _, state in runs(case)} <= {"complete", "closed"}


def assert_erased(
    case: Case, faces: dict[str, Any], subject: str = ERASED, plans_erased: int = 2
) -> None:
    """A person is gone, provably, and everybody else is there."""
    others = [name for name in PEOPLE if name != subject]
    assert_sound(case, faces, others, plans_erased=plans_erased)
    for name in ("templates", "inputs", "vault"):
        assert subject not in {row["subject_id"] for row in rows(case, name)}
    proved = case.run("prove", f"--subject={subject}", "--json")
    assert (proved.code, proved.json()["failures"]) == (0, []), proved.out
    assert "1 templates" in str(proved.json()["record"])


class TestOtherWays:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_every_encoding_is_read(self, unpacked, faces, encoding):
        case = unpacked(f"encoding_{encoding}")
        assert_sound(case, faces, FEW, step=1)
        assert {row["encoding"] for row in live(case)} == {f"{encoding}.1"}
        assert {row["centring"] for row in live(case)} == {"regression"}

    @pytest.mark.slow
    def test_what_was_filled_is_filled_alike(self, unpacked, faces, sources, tmp_path):
        case = unpacked("filled")
        assert_sound(case, faces, FEW, step=1)
        (profile,) = (case.table / "_ironmask").glob("profile-*.parquet")
        refused = case.enroll("--fill=0")
        assert refused.code == 1
        assert "filling is 0.1 there and 0.0 here" in refused.errors[0]
        answer = case.enroll("--json")
        assert answer.code == 3, answer.err
        assert answer.json()["subjects_enrolled"] == len(PEOPLE) - len(FEW)
        assert [path.name for path in (case.table / "_ironmask").glob("profile-*")] == [
            profile.name
        ]
        assert {round(row["filling"], 6) for row in live(case)} == {0.1}
        assert_sound(case, faces)


class TestLaterLives:
    @pytest.mark.slow
    def test_what_was_renewed_three_times(self, unpacked, faces):
        """Re-protected, rekeyed, and under one more MAC key."""
        case = unpacked("renewed")
        assert_sound(case, faces)
        assert states(case) == {1: "destroyed", 2: "destroyed", 3: "destroyed", 4: "live"}
        assert key_states(case) == states(case)
        for number in (1, 2, 3):
            proved = case.run("prove", f"--generation={number}", "--json")
            assert (proved.code, proved.json()["failures"]) == (0, []), proved.out

    @pytest.mark.slow
    @pytest.mark.parametrize("command", ["rotate-mac", "rekey", "reprotect"])
    def test_it_is_renewed_once_more(self, unpacked, faces, command):
        case = unpacked("renewed")
        before = live(case)
        more = ["--vault"] if command == "reprotect" else []
        assert case.renew(command, *more).code == 0
        assert_renewed(case, faces, before, 5, same=same_ids(command, before))

    @pytest.mark.slow
    def test_a_person_is_erased_of_it(self, unpacked, faces):
        case = unpacked("renewed")
        assert case.run("erase", "--yes", f"--subject={ERASED}").code == 0
        # That of the rekey went too, and is missed by nobody.
        assert_erased(case, faces, plans_erased=4)

    def test_who_was_erased_is_gone(self, unpacked, faces):
        case = unpacked("erased")
        assert_erased(case, faces)
        assert ("erase", "complete") in runs(case)
        assert outcomes(case)["used", "erased"] == 3
        (kept,) = {row["subject_id"] for row in rows(case, "inputs") if row["reason"] == "erased"}
        assert kept.startswith("erased-")

    @pytest.mark.slow
    def test_the_others_are_re_protected(self, unpacked, faces):
        case = unpacked("erased")
        assert case.renew("reprotect", "--vault").code == 0
        assert_sound(case, faces, OTHERS, plans_erased=2)
        assert ERASED.encode() not in all_bytes(case)

    @pytest.mark.slow
    def test_an_erasure_is_finished(self, unpacked, faces, gallery):
        """Killed when the templates were written again, and the vault was not."""
        case = unpacked("erase_half")
        refused = case.enroll("--vault", source=gallery)
        assert refused.code == 1
        assert "the erasure of a subject was broken off" in refused.errors[0]
        refused = case.run("erase", "--yes", "--subject=s004")
        assert refused.code == 1
        answer = case.run("erase", "--yes", f"--subject={ERASED}", "--json")
        assert answer.code == 0, answer.err
        (done,) = answer.json()
        assert (done["templates"], done["embeddings"]) == (1, 3)
        assert_erased(case, faces)
        assert ERASED.encode() not in all_bytes(case)


class TestEnrolments:
    """Killed: between two commits of the third wave of two shards, or inside a shard."""

    CASES = [("enrol_half_wave", ["--vault"], 12), ("enrol_in_a_shard", [], 8)]  # noqa: RUF012

    @pytest.mark.parametrize(("name", "more", "committed"), [slow(*CASES[0]), CASES[1]])
    def test_it_goes_on(self, unpacked, sources, faces, name, more, committed):
        case = unpacked(name)
        kept = self.begun(case, committed)
        answer = case.enroll(*more, "--json")
        if not resumed_or_refused(case, answer):
            assert ids(live(case)) == kept
            return
        self.ended(case, faces, kept)
        assert runs(case) == [("enrol", "complete")]
        assert answer.json()["resumed_shards"] == committed // 2
        assert outcomes(case) == OUTCOMES

    @pytest.mark.parametrize(("name", "more", "committed"), [CASES[0], slow(*CASES[1])])
    def test_it_is_closed_and_planned_afresh(self, unpacked, sources, faces, name, more, committed):
        case = unpacked(name)
        kept = self.begun(case, committed)
        answer = case.enroll(*more, "--json", "--restart")
        assert answer.code == 3, answer.err
        self.ended(case, faces, kept)
        assert runs(case) == [("enrol", "closed"), ("enrol", "complete")]

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["enrol_half_wave"])
    def test_it_goes_on_in_the_bucket(self, unpacked, sources, faces, name):
        """Where the killed process has left its lease."""
        case = unpacked(name)
        kept = self.begun(case, 12)
        put(sources, name, files_of(name))
        assert f"{name}/table/_ironmask/lease.json" in keys_below(sources, name)
        dest = f"s3://{BUCKET}/{name}/table"
        answer = ironmask("enroll", SOURCE, dest, case.keys, *SETTINGS, "--vault", "--json")
        resumes = resumed_or_refused(case, answer)
        fetch(sources, case)
        assert not (case.table / "_ironmask" / "lease.json").exists()
        if resumes:
            self.ended(case, faces, kept)

    def test_it_is_bound_to_what_it_read(self, unpacked, sources):
        case = unpacked("enrol_in_a_shard")
        put(sources, "inputs", {"enrolled/gallery.parquet": files_of("inputs")["small.parquet"]})
        answer = case.enroll()
        assert answer.code == 1
        assert "source (" in answer.errors[0]

    def begun(self, case: Case, committed: int) -> set[str]:
        """The templates of a run that was killed; it is sound as far as it went."""
        assert [state for _, state in runs(case)] == ["running"]
        checked = case.run("check", "--deep", "--json").json()
        assert checked["findings"] == []
        kept = live(case)
        assert [row["subject_id"] for row in kept] == PEOPLE[:committed]
        return ids(kept)

    def ended(self, case: Case, faces: dict[str, Any], kept: set[str]) -> None:
        assert_sound(case, faces)
        assert kept < ids(live(case))
        counted = Counter((row["run_id"], row["uri"]) for row in rows(case, "inputs"))
        assert set(counted.values()) == {1}


class TestRenewals:
    """Killed before the switch to the new generation, or after it."""

    BEFORE = [("reprotect_half_wave", "reprotect"), ("rekey_half_wave", "rekey")]  # noqa: RUF012
    AFTER = [  # noqa: RUF012
        ("reprotect_switched", "reprotect"),
        ("reprotect_without_old_keys", "reprotect"),
        ("rotate-mac_switched", "rotate-mac"),
    ]

    @pytest.mark.parametrize(("name", "command"), [BEFORE[0], slow(*BEFORE[1])])
    def test_it_goes_on(self, unpacked, sources, faces, name, command):
        case, before = self.prepared(unpacked(name), faces)
        first = [row for row in rows(case, "templates") if row["generation"] == 2]
        answer = case.renew(command, "--json")
        if not resumed_or_refused(case, answer):
            assert live(case) == before
            return
        assert answer.code == 0, answer.err
        # What 0.1.0 wrote before it was killed kept its ids.
        kept = ids(first) if command == "rekey" else same_ids(command, before)
        assert_renewed(case, faces, before, 2, same=kept)
        assert ids(first) <= ids(live(case))
        assert runs(case) == [("enrol", "complete")] * 2 + [(command, "complete")]

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "command"), [BEFORE[0], slow(*BEFORE[1])])
    def test_it_is_closed_and_planned_afresh(self, unpacked, sources, faces, name, command):
        case, before = self.prepared(unpacked(name), faces)
        first = [row for row in rows(case, "templates") if row["generation"] == 2]
        answer = case.renew(command, "--restart")
        assert answer.code == 0, answer.err
        kept = ids(before) & ids(live(case))
        assert len(kept) == (len(first) if command == "rekey" else 0)
        assert_renewed(case, faces, before, 2, same=kept)

    def test_it_is_given_up(self, unpacked, sources, faces):
        case, before = self.prepared(unpacked("reprotect_half_wave"), faces)
        assert case.run("reprotect", "--abandon").code == 0
        assert live(case) == before
        assert states(case) == key_states(case) == {1: "live", 2: "destroyed"}
        assert_sound(case, faces)

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "command"), AFTER)
    def test_it_ends(self, unpacked, faces, name, command):
        """Nothing is read from the source any more, so the code's version does not matter."""
        case = unpacked(name)
        assert states(case) == {1: "retired", 2: "live"}
        assert_verified(case, faces)
        new = live(case)
        old = [row for row in rows(case, "templates") if row["generation"] == 1]
        assert [row["subject_id"] for row in sorted(old, key=lambda r: r["subject_id"])] == PEOPLE
        answer = case.renew(command, "--json")
        assert answer.code == 0, answer.err
        found = answer.json()
        assert (found["generation"], found["lost"], found["proof"]["files"]) == (2, 0, 12)
        assert live(case) == new
        assert_renewed(case, faces, old, 2, same=ids(old) if command != "reprotect" else None)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["reprotect_switched"])
    def test_it_ends_in_the_bucket(self, unpacked, sources, faces, name):
        case = unpacked(name)
        old = [row for row in rows(case, "templates") if row["generation"] == 1]
        put(sources, name, files_of(name))
        dest = f"s3://{BUCKET}/{name}/table"
        answer = ironmask("reprotect", dest, case.keys, "--executor=local")
        assert answer.code == 0, answer.err
        fetch(sources, case)
        assert_renewed(case, faces, old, 2)

    def prepared(self, case: Case, faces: dict[str, Any]) -> tuple[Case, list[dict[str, Any]]]:
        """A case before its switch, and its live rows, by which everybody is verified."""
        assert states(case) == {1: "live", 2: "preparing"}
        assert_verified(case, faces)
        assert 0 < len(rows(case, "templates")) - len(PEOPLE) < len(PEOPLE)
        return case, live(case)


class TestEvaluations:
    @pytest.mark.slow
    def test_it_goes_on(self, unpacked, sources):
        """Two of four blocks are there, and half of the third."""
        case = unpacked("evaluation")
        put(sources, case.name, files_of(case.name))
        before = {key: etag(sources, key) for key in keys_below(sources, f"{case.name}/out")}
        assert len(before) == 6
        answer = ironmask(
            "evaluate", PROBES, f"s3://{BUCKET}/{case.name}/out", "--protocol=all",
            "--protocol=first:1", "--protocol=first:2", "--centring=mean", "--centring=regression",
            "--alpha=12", "--tolerance=1", "--executor=local", "--json",
        )  # fmt: skip
        assert answer.code == 0, answer.err
        assert_counts(answer.json(), expected(case))
        kept = {key: etag(sources, key) for key in before if "000002" not in key}
        assert len(kept) == 5
        assert kept == {key: before[key] for key in kept}
        blocks = [key for key in keys_below(sources, f"{case.name}/out/blocks") if "counts" in key]
        assert len(blocks) == 4

    @pytest.mark.slow
    def test_that_of_a_table_goes_on(self, unpacked, sources):
        """No block is whole. The path of the keyset file is part of what is evaluated."""
        case = unpacked("evaluation_of_a_table")
        before = len(rows(case, "metrics"))
        files = files_of(case.name)
        found = json.loads(files["out/evaluation.json"])
        found["issued"]["keys"] = case.keys.removeprefix("--keys=")
        put(sources, case.name, {**files, "out/evaluation.json": json.dumps(found).encode()})
        place = f"s3://{BUCKET}/{case.name}"
        answer = ironmask(
            "evaluate", PROBES, f"{place}/out", f"--table={place}/table", case.keys,
            SEED, "--executor=local", "--json",
        )  # fmt: skip
        assert answer.code == 0, answer.err
        assert_counts(answer.json(), expected(case))
        fetch(sources, case)
        assert case.run("check", "--deep").code == 0
        assert len(rows(case, "metrics")) > before


def etag(client: Any, key: str) -> str:
    found: str = client.head_object(Bucket=BUCKET, Key=key)["ETag"]
    return found
