"""The command line as people and scripts use it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from support.command import Answer, ironmask
from support.enrolling import captures, enroll, several, unit_vectors, write_embeddings
from support.pictures import noise, photos
from support.table import assert_sound, keys_of, outcomes, rows

from ironmask.params import DEFAULT_PRESET, preset
from pipelines import cli
from pipelines.cli.progress import live
from pipelines.plan.plans import Plan
from pipelines.run.summary import Tally

BALANCED = f"{preset(DEFAULT_PRESET).bits:.1f} bits"


def words(text: str) -> str:
    """What a table says, without its lines and line breaks."""
    return " ".join(word for word in text.split() if not set(word) <= set("│┃┌┐└┘├┤─━┏┓┡┩┬┴╇"))


def full_width(path: Path, subjects: int) -> Path:
    names = [f"s{number:03d}" for number in range(subjects) for _ in range(2)]
    return write_embeddings(path, names, captures(unit_vectors(subjects, width=512), 2))


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Answer]:
    """Source, destination and answer of an enrolment with the default settings."""
    folder = tmp_path_factory.mktemp("table")
    source, dest = full_width(folder / "e.parquet", 4), folder / "dest"
    keys = f"--keys={keys_of(dest)}"
    return source, dest, ironmask("enroll", source, dest, "--executor=local", keys)


class TestEnroll:
    def test_says_its_settings_with_their_bits_and_what_it_did(self, table):
        _, dest, answer = table
        assert answer.code == 0
        assert BALANCED in answer.err
        said = words(answer.out)
        for part in (
            BALANCED,
            "inputs 8",
            "used 8",
            "failed 0",
            "subjects enrolled 4",
            "subjects not enrolled 0",
            "inputs/s",
        ):
            assert part in said
        assert f"run {rows(dest, 'templates')[0]['run_id']}" in said

    def test_json_is_all_of_standard_output(self, tmp_path):
        source, dest = several(tmp_path / "e.parquet", 3), tmp_path / "d"
        answer = enroll(source, dest, "--json")
        summary = json.loads(answer.out)
        assert answer.out.count("\n") == 1
        assert (summary["inputs"], summary["used"], summary["subjects_enrolled"]) == (6, 6, 3)
        assert summary["dest"] == str(dest)
        assert "58.5 bits" in summary["settings"]
        assert summary["run_id"] == rows(dest, "templates")[0]["run_id"]

    def test_again_skips_whoever_is_enrolled(self, tmp_path):
        source, dest = several(tmp_path / "e.parquet", 3), tmp_path / "d"
        assert enroll(source, dest).code == 0
        first = rows(dest, "templates")
        more = several(tmp_path / "m.parquet", 5)
        answer = enroll(more, dest, "--json")
        assert answer.code == 0
        summary = json.loads(answer.out)
        assert (summary["skipped"], summary["used"], summary["subjects_enrolled"]) == (6, 4, 2)
        assert summary["reasons"] == {"already_enrolled": 6}
        assert all(row in rows(dest, "templates") for row in first)
        assert_sound(dest, 6 + 10)

    def test_presets_and_their_bits(self, tmp_path):
        source = full_width(tmp_path / "e.parquet", 1)
        for name, bits in (("paper", "115.4"), ("compact", "80.1"), ("strict", "128.3")):
            answer = ironmask(
                "enroll",
                source,
                tmp_path / "d",
                "--executor=local",
                "--dry-run",
                f"--preset={name}",
            )
            assert f"({bits} bits" in answer.err
            assert f"({bits} bits" in words(answer.out)

    def test_keys_have_a_default_place_outside_the_table(self, tmp_path):
        source, dest = several(tmp_path / "e.parquet", 2), tmp_path / "d"
        common = ["enroll", source, dest, "--executor=local", "--alpha=12", "--tolerance=1"]
        assert ironmask(*common).code == 0
        (keys,) = (tmp_path / "config" / "ironmask" / "keys").glob("*.json")
        assert keys.stat().st_mode & 0o777 == 0o600
        assert json.loads(ironmask("inspect", dest, "--json").out)["table_id"] == keys.stem
        assert ironmask(*common).code == 0

    def test_plaintext_helpers_warn_and_are_marked(self, tmp_path):
        source, dest = several(tmp_path / "e.parquet", 2), tmp_path / "d"
        answer = enroll(
            source, dest, "--code-width=64", "--plaintext-helpers", "--accept-risk=stolen-rows"
        )
        assert answer.code == 0
        assert "WARNING: helpers are stored unencrypted" in answer.err
        assert "PLAINTEXT helpers" in words(answer.out)
        assert [row["sealed"] for row in rows(dest, "templates")] == [False, False]
        assert "PLAINTEXT (research mode)" in words(ironmask("inspect", dest).out)
        found = json.loads(ironmask("inspect", dest, "--json").out)
        assert [g["sealed"] for g in found["generations"]] == [False]
        assert enroll(source, dest).code == 1

    def test_no_warning_without_a_reason(self, table):
        _, dest, answer = table
        assert "WARNING: helpers" not in answer.err
        assert answer.err.count("WARNING: no model files of 'unknown' at hand") == 1
        assert all(row["sealed"] for row in rows(dest, "templates"))


class TestDryRun:
    def test_writes_nothing_at_all(self, tmp_path):
        source = several(tmp_path / "e.parquet", 5)
        before = everything(tmp_path)
        common = ["--executor=local", "--dry-run", "--shard-size=4", "--alpha=12", "--tolerance=1"]
        answer = ironmask("enroll", source, tmp_path / "d", *common)
        assert answer.code == 0, answer.err
        said = words(answer.out)
        for part in ("inputs 10 in 3 shards", "to process 10", "subjects to enrol 5", "58.5 bits"):
            assert part in said
        found = json.loads(ironmask("enroll", source, tmp_path / "d", *common, "--json").out)
        assert (found["inputs"], found["todo"], found["subjects"], found["shards"]) == (
            10,
            10,
            5,
            3,
        )
        assert "58.5 bits" in found["settings"]
        assert everything(tmp_path) == before

    def test_at_a_table(self, tmp_path):
        source, dest = several(tmp_path / "e.parquet", 3), tmp_path / "d"
        assert enroll(source, dest).code == 0
        more = several(tmp_path / "m.parquet", 5)
        before = everything(tmp_path)
        found = json.loads(enroll(more, dest, "--dry-run", "--json").out)
        assert (found["inputs"], found["todo"], found["subjects"]) == (10, 4, 2)
        assert found["reasons"] == {"already_enrolled": 6}
        assert everything(tmp_path) == before

    def test_promises_what_the_run_then_does(self, tmp_path):
        vectors = unit_vectors(4)
        names = ["a", "a", "b", "c", None]
        chosen = [vectors[0], vectors[0], vectors[0], vectors[1], vectors[2]]
        source = write_embeddings(tmp_path / "e.parquet", names, chosen)
        said = json.loads(enroll(source, tmp_path / "d", "--dry-run", "--json").out)
        done = json.loads(enroll(source, tmp_path / "d", "--json").out)
        assert said["reasons"] == done["reasons"]
        assert (said["inputs"], said["todo"], said["subjects"]) == (
            done["inputs"],
            done["used"],
            done["subjects_enrolled"],
        )
        size = sum(
            len(row["helper"]) + len(row["digests"]) for row in rows(tmp_path / "d", "templates")
        )
        assert said["template_bytes"] <= size < said["template_bytes"] + 1_000

    def test_looks_at_pictures_no_further_than_at_their_names_and_bytes(self, tmp_path, face_data):
        tree = tmp_path / "tree"
        shutil.copytree(next(photos(face_data)).parent, tree / "ann")
        (tree / "ann" / "broken.jpg").write_bytes(b"x")
        model = f"--model={face_data / 'models' / 'buffalo_sc'}"
        before = everything(tmp_path)
        answer = enroll(tree, tmp_path / "d", model, "--dry-run", "--json")
        assert answer.code == 0, answer.err
        assert "licence: non-commercial research" in answer.err
        assert json.loads(answer.out)["subjects"] == 1
        assert everything(tmp_path) == before


class TestInspect:
    def test_for_people(self, table):
        _, dest, _ = table
        answer = ironmask("inspect", dest)
        assert (answer.code, answer.err) == (0, "")
        said = words(answer.out)
        for part in (
            "4 templates",
            "n 512, code 1024 wide, quaternionic, alpha 16, tolerance 2",
            BALANCED,
            "int8",
            "encrypted",
            "declared:unknown",
            "inputs used 8",
            "enrol, complete",
            "KiB a row",
        ):
            assert part in said

    def test_for_scripts(self, table):
        _, dest, _ = table
        answer = ironmask("inspect", dest, "--json")
        found = json.loads(answer.out)
        (generation,) = found["generations"]
        assert (generation["generation"], generation["templates"]) == (1, 4)
        assert generation["bits"] == pytest.approx(preset(DEFAULT_PRESET).bits)
        assert BALANCED in generation["settings"]
        assert generation["key_id"] == rows(dest, "templates")[0]["key_id"]
        assert (found["outcomes"], found["reasons"]) == ({"used": 8}, {})
        for name in ("templates", "inputs"):
            files = [p for p in (dest / name).rglob("*.parquet") if "_delta_log" not in p.parts]
            assert found["data_bytes"][name] == sum(p.stat().st_size for p in files)

    def test_failures_by_reason(self, tmp_path):
        vectors = unit_vectors(4)
        chosen = [vectors[0], vectors[1] * np.nan, 0 * vectors[2], 0 * vectors[3]]
        source = write_embeddings(tmp_path / "e.parquet", list("abcd"), chosen)
        dest = tmp_path / "d"
        assert enroll(source, dest).code == 3
        found = json.loads(ironmask("inspect", dest, "--json").out)
        assert found["outcomes"] == {"used": 1, "failed": 3}
        assert found["reasons"] == {"not_finite": 1, "zero_norm": 2}
        said = words(ironmask("inspect", dest).out)
        assert "inputs failed 3" in said
        assert "zero_norm 2" in said

    def test_a_table_without_a_template(self, tmp_path):
        source = write_embeddings(tmp_path / "e.parquet", ["a"], [np.zeros(64)])
        assert enroll(source, tmp_path / "d").code == 3
        answer = ironmask("inspect", tmp_path / "d", "--json")
        assert answer.code == 0, answer.err
        assert json.loads(answer.out)["generations"] == []

    def test_needs_no_key(self, table):
        _, dest, _ = table
        hidden = keys_of(dest).with_name("hidden")
        keys_of(dest).rename(hidden)
        try:
            assert ironmask("inspect", dest).code == 0
        finally:
            hidden.rename(keys_of(dest))


class TestVerify:
    """One photo of each of two people is enrolled."""

    @pytest.fixture(scope="class")
    def people(self, tmp_path_factory, face_data):
        folder = tmp_path_factory.mktemp("people")
        every = photos(face_data)
        probes = {"ann": next(every), "bob": next(every)}
        for name, photo in probes.items():
            (folder / "tree" / name).mkdir(parents=True)
            shutil.copy(photo, folder / "tree" / name / "1.jpg")
        probes["nobody"] = folder / "noise.png"
        probes["nobody"].write_bytes(noise())
        dest = folder / "dest"
        model = f"--model={face_data / 'models' / 'buffalo_sc'}"
        assert enroll(folder / "tree", dest, model).code == 0

        def ask(subject: str, names: str, *more: str) -> Answer:
            chosen = [probes[name] for name in names.split()]
            keys = f"--keys={keys_of(dest)}"
            return ironmask("verify", dest, f"--subject={subject}", keys, model, *more, *chosen)

        return ask

    @pytest.mark.parametrize(
        ("names", "code", "said"),
        [
            ("ann", 0, ["accepted"]),
            ("ann ann", 0, ["accepted"]),
            ("bob", 4, ["rejected"]),
            ("ann bob", 4, ["accepted", "rejected"]),
            ("nobody", 3, ["no answer: no_face"]),
            ("ann nobody", 3, ["accepted", "no answer: no_face"]),
            ("bob nobody", 3, ["rejected", "no answer: no_face"]),
        ],
    )
    def test_answers_and_exit_codes(self, people, names, code, said):
        answer = people("ann", names)
        assert (answer.code, answer.err) == (code, "")
        for part in ("accepted", "rejected", "no answer: no_face"):
            assert (part in words(answer.out)) == (part in said)

    def test_json_tells_no_score(self, people):
        answer = people("bob", "ann bob nobody", "--json")
        found = json.loads(answer.out)
        assert [verdict["accepted"] for verdict in found] == [False, True, None]
        assert [verdict["reason"] for verdict in found] == ["", "", "no_face"]
        assert {name for verdict in found for name in verdict} == {
            "probe",
            "accepted",
            "reason",
            "detail",
        }


def listed_packs() -> dict[str, dict[str, Any]]:
    return {pack["name"]: pack for pack in json.loads(ironmask("models", "list", "--json").out)}


class TestModels:
    def test_list(self):
        answer = ironmask("models", "list")
        assert (answer.code, answer.err) == (0, "")
        for part in ("buffalo_sc", "buffalo_l", "edgeface_s", "non-commercial"):
            assert part in words(answer.out)
        found = {
            pack["name"]: pack for pack in json.loads(ironmask("models", "list", "--json").out)
        }
        assert {"buffalo_sc", "buffalo_l", "edgeface_s"} == set(found)
        assert not any(pack["installed"] for pack in found.values())
        assert all(pack["licence"] for pack in found.values())

    def test_pull_from_a_folder_then_enrol_by_name(self, tmp_path, face_data):
        source = face_data / "models" / "buffalo_sc"
        answer = ironmask("models", "pull", "buffalo_sc", f"--source={source}")
        assert answer.code == 0, answer.err
        assert str(tmp_path / "models" / "buffalo_sc") in answer.out
        assert "licence: non-commercial research" in answer.out
        found = {
            pack["name"]: pack for pack in json.loads(ironmask("models", "list", "--json").out)
        }
        assert found["buffalo_sc"]["installed"]
        tree = tmp_path / "tree"
        (tree / "ann").mkdir(parents=True)
        shutil.copy(next(photos(face_data)), tree / "ann")
        answer = enroll(tree, tmp_path / "d", "--model=buffalo_sc")
        assert answer.code == 0, answer.err
        digits = found["buffalo_sc"]["fingerprint"][:12]
        assert len(digits) == 12
        assert digits in words(ironmask("models", "list").out)
        assert f"model: buffalo_sc ({digits}), licence: non-commercial" in answer.err
        assert f"model buffalo_sc ({digits})" in words(ironmask("inspect", tmp_path / "d").out)


def commands() -> Iterator[tuple[tuple[str, ...], typer.core.TyperCommand]]:
    """Every command with the words that call it."""

    def below(path, command):
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from below((*path, name), child)

    yield from below((), typer.main.get_command(cli.app))


class TestHelp:
    @pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
    def test_tells_the_meaning_of_everything(self, path, monkeypatch):
        monkeypatch.setenv("COLUMNS", "300")
        answer = ironmask(*path, "--help")
        assert (answer.code, answer.err) == (0, "")
        command = dict(commands())[path]
        said = words(answer.out)
        assert command.help
        assert command.help.split("\n")[0] in said
        for parameter in command.params:
            assert parameter.help, parameter.name
            assert parameter.help.split(";")[0] in said
            assert all(option in said for option in parameter.opts if option.startswith("-"))
        for name, child in getattr(command, "commands", {}).items():
            assert name in said
            assert child.help

    def test_names_bits_and_exit_codes(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "300")
        said = words(ironmask("enroll", "--help").out)
        for part in ("115 bits", "80 bits", "128 bits", "0 complete, 1 error, 2 usage, 3 complete"):
            assert part in said
        assert "4 some rejected, 3 some without an answer" in words(
            ironmask("verify", "--help").out
        )

    @pytest.mark.parametrize("arguments", [["--help"], ["enroll", "--help"]])
    def test_loads_nothing_heavy(self, arguments):
        code = (
            "import sys\n"
            "from pipelines import cli\n"
            "try:\n    cli.main()\n"
            "except SystemExit as stopped:\n    assert not stopped.code\n"
            "heavy = {'ray', 'prefect', 'numpy', 'scipy', 'pyarrow', 'deltalake', 'onnxruntime'}\n"
            "print('heavy:', sorted(heavy & set(sys.modules)))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "heavy: []"

    def test_version(self):
        assert ironmask("--version").out == f"ironmask {version('ironmask')}\n"

    def test_no_command_shows_the_help(self):
        answer = ironmask()
        assert answer.code in (0, 2)
        assert "enroll" in answer.out + answer.err


PROGRAM = [sys.executable, "-m", "pipelines.cli"]


def start(source: Path, dest: Path, *more: str, **streams: object) -> subprocess.Popen[bytes]:
    """A job that can be interrupted, also where the tests run in the background of a shell."""
    streams["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    common = ["--executor=local", "--alpha=12", "--tolerance=1", f"--keys={keys_of(dest)}"]
    return subprocess.Popen([*PROGRAM, "enroll", str(source), str(dest), *common, *more], **streams)


def some_bad(path: Path, subjects: int) -> Path:
    """One embedding each of some subjects; every tenth is zero."""
    vectors = unit_vectors(subjects)
    vectors[::10] = 0
    return write_embeddings(path, [f"s{number:04d}" for number in range(subjects)], vectors)


def read_terminal(terminal: int) -> str:
    shown = b""
    with contextlib.suppress(OSError):  # its other end is closed
        while part := os.read(terminal, 65_536):
            shown += part
    os.close(terminal)
    return shown.decode()


def frames(shown: str) -> list[str]:
    """The lines that a terminal showed one after another."""
    uncoloured = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    return re.split(r"[\r\n]+|\x1b\[[0-9;?]*[A-Za-z]", uncoloured)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    def terminal(self, columns: int) -> tuple[int, int]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        return ours, theirs

    def test_is_live_on_a_terminal(self, tmp_path):
        source, dest = some_bad(tmp_path / "e.parquet", 60), tmp_path / "d"
        ours, theirs = self.terminal(80)
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("COLUMNS", None)
        limits = ["--shard-size=10", "--max-failures=6"]
        with start(source, dest, *limits, stdout=PIPE, stderr=theirs, env=environment) as running:
            os.close(theirs)
            shown = read_terminal(ours)
            running.communicate()
        assert running.returncode == 0, shown
        committed = [line for line in frames(shown) if "committed, left" in line]
        assert "60/60 committed" in committed[-1]
        last = [line for line in frames(shown) if "enrolled" in line][-1]
        assert "60/60" in last
        assert "54 enrolled" in last
        assert "6 failed" in last
        assert re.search(r"[\d,.]+/s", last)

    def test_fits_a_usual_terminal(self):
        """All that people look for in a run of millions, in 80 columns."""
        said = Screen()
        console = Console(file=said, force_terminal=True, width=80, color_system=None)
        plan = Plan("run", "uri", "digest", 5_000, 1_234_567, 423_000, 1_234_567)
        tally = Tally(Counter({("used", ""): 400_000, ("failed", "no_face"): 4_936}), 160_000)
        tally.committed = 400_000
        with live(console, wanted=True) as update:
            for _ in range(5):
                update(plan, tally)
                time.sleep(0.05)
                tally.outcomes["used", ""] += 1
        committed = [line for line in frames(said.getvalue()) if "committed, left" in line][-1]
        assert re.search(r"\b400,?000\b.*\b1,?234,?567\b", committed), committed
        last = [line for line in frames(said.getvalue()) if "enrolled" in line][-1]
        assert len(last) <= 80
        for part in (r"\b404,?940\b", r"\b1,?234,?567\b", "160,000", r"4,936\b.*failed", r"\d/s"):
            assert re.search(part, last), last
        assert re.search(r"left\W+(\d+ days?, )?(\d+:)+\d\d\b", last), last

    @pytest.mark.slow
    @pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "forced colour"])
    def test_is_quiet_elsewhere(self, tmp_path, forced):
        source, dest = some_bad(tmp_path / "e.parquet", 20), tmp_path / "d"
        environment = {**os.environ, **forced}
        limits = ["--shard-size=10", "--max-failures=2"]
        with start(source, dest, *limits, stdout=PIPE, stderr=PIPE, env=environment) as running:
            _, said = running.communicate()
        assert running.returncode == 0
        starts = [line.partition(b":")[0] for line in said.splitlines()]
        assert starts == [b"settings", b"agreement", b"WARNING"]
        assert b"\r" not in said
        assert b"\x1b" not in said

    def test_is_quiet_where_json_is_wanted(self, tmp_path):
        source, dest = some_bad(tmp_path / "e.parquet", 20), tmp_path / "d"
        ours, theirs = self.terminal(100)
        with start(source, dest, "--json", stdout=PIPE, stderr=theirs) as running:
            os.close(theirs)
            shown = read_terminal(ours)
            said, _ = running.communicate()
        assert json.loads(said)["failed"] == 2
        assert "\x1b" not in shown


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(tmp_path):
    source, dest = several(tmp_path / "e.parquet", 1200, each=1), tmp_path / "d"
    with start(source, dest, "--shard-size=10", stdout=PIPE, stderr=PIPE) as running:
        while running.poll() is None and not list(dest.glob("templates/*/part-*.parquet")):
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate()
    assert running.returncode == 130, said
    assert said.decode().splitlines()[-1] == "interrupted; the same command continues the run"
    answer = enroll(source, dest, "--shard-size=10", "--json")
    assert answer.code == 0, answer.err
    assert_sound(dest, 1200)
    assert outcomes(dest) == {("used", ""): 1200}
