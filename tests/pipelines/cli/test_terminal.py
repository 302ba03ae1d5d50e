"""What reaches a terminal: names, ids and library texts are shown, and none takes effect."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import ALPHA, TOLERANCE, enroll, unit_vectors, write_embeddings
from support.table import keys_of

from pipelines.spec.texts import visible

# A title, a colour, the cursor to the top, a bell, a C1 control, a reversal of writing, lines.
EVIL = "ann\x1b]0;owned\x07\x1b[31m\x1b[2J\x1b[H\x9b31m\u202egpj\rOK\x08\u2028end"
STYLES = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[0-9]*[AGK]|1A|2K)")


def on_terminal(*arguments: object, cwd: Path) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; return its code and all that the terminal was sent."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "300"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    child = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, cwd=cwd, env=environment
    )
    os.close(follower)
    said, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                got = os.read(leader, 1 << 16)
            except OSError:
                break
            if not got:
                break
            said += got
    os.close(leader)
    return child.wait(30), said.decode("utf-8", "surrogateescape")


def assert_harmless(said: str) -> None:
    """Beside the styles of the tables themselves there is no control character."""
    rest = STYLES.sub("", said).replace("\r\n", "\n")
    bad = {c for c in rest if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\r"}
    assert not bad, [hex(ord(c)) for c in bad]
    assert "\x1b]0;" not in said
    assert "\x1b[31mgpj" not in said
    assert "\u2028" not in said


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    source = write_embeddings(tmp_path / "e.parquet", [EVIL, "bob"], unit_vectors(2))
    assert enroll(source, tmp_path / "dest").code == 0
    return tmp_path / "dest"


def test_a_refusal_that_names_a_file(tmp_path: Path) -> None:
    code, said = on_terminal("enroll", tmp_path / EVIL, tmp_path / "d", cwd=tmp_path)
    assert code == 1
    assert_harmless(said)
    assert r"ann\x1b]0;owned\x07\x1b[31m" in said


def test_a_wrong_option(tmp_path: Path) -> None:
    code, said = on_terminal("inspect", f"--{EVIL}", tmp_path / "d", cwd=tmp_path)
    assert code == 2
    assert_harmless(said)
    assert r"\x1b]0;owned" in said
    code, said = on_terminal(EVIL, cwd=tmp_path)
    assert code == 2
    assert_harmless(said)


def test_columns_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"subject_id": ["a"], EVIL: ["b"]}), path)
    code, said = on_terminal("enroll", path, tmp_path / "d", cwd=tmp_path)
    assert code == 1
    assert_harmless(said)
    assert r"\x1b]0;owned" in said


@pytest.mark.slow
def test_subjects_probes_and_tables(tmp_path: Path, dest: Path) -> None:
    for command in (
        ["prove", dest, f"--subject={EVIL}", f"--keys={keys_of(dest)}"],
        ["verify", dest, tmp_path / EVIL, f"--subject={EVIL}", f"--keys={keys_of(dest)}"],
        ["inspect", dest],
        ["status", dest],
        ["erase", "--yes", dest, f"--subject={EVIL}x", f"--keys={keys_of(dest)}"],
    ):
        _, said = on_terminal(*command, cwd=tmp_path)
        assert_harmless(said)


@pytest.mark.slow
def test_a_model_of_that_name_is_shown_in_a_table(tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "e.parquet", ["a", "b"], unit_vectors(2))
    alpha, keys = (f"--alpha={ALPHA}", f"--tolerance={TOLERANCE}"), f"--keys={tmp_path / 'k.json'}"
    model = f"--model={EVIL}"
    dest = tmp_path / "named"
    code, said = on_terminal(
        "enroll", source, dest, "--executor=local", *alpha, keys, model, cwd=tmp_path
    )
    assert code == 0, said
    assert_harmless(said)
    code, said = on_terminal("inspect", dest, cwd=tmp_path)
    assert code == 0
    assert_harmless(said)
    assert r"ann\x1b]0;owned" in said


def test_an_error_that_nobody_catches(tmp_path: Path) -> None:
    code = f"from pipelines import cli; cli.guard_terminal(); raise ValueError({EVIL!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert "Traceback" in done.stderr
    assert_harmless(done.stderr)


def test_a_log_that_nobody_set_up(tmp_path: Path) -> None:
    code = (
        "import logging; from pipelines import cli; cli.guard_terminal()\n"
        f"logging.getLogger('ironmask').warning('%s and https://h/x?sig=s3cr3t', {EVIL!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert r"\x1b]0;owned" in done.stderr
    assert "s3cr3t" not in done.stderr
    assert_harmless(done.stderr)


@pytest.mark.parametrize("form", ["text", "json"])
def test_logs(tmp_path: Path, form: str) -> None:
    code = (
        "import logging; from infra.telemetry import configure_logging\n"
        f"configure_logging('info', {form!r})\n"
        f"logging.getLogger('ironmask.x').info('%s', {EVIL!r}, extra={{'subject': {EVIL!r}}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert "owned" in done.stderr
    assert_harmless(done.stderr)
    if form == "json":
        assert json.loads(done.stderr)["subject"] == EVIL


def test_json_is_exact(tmp_path: Path) -> None:
    source, dest = write_embeddings(tmp_path / "e.parquet", ["a"], unit_vectors(1)), tmp_path / "d"
    assert enroll(source, dest, f"--model={EVIL}").code == 0
    answer = ironmask("inspect", dest, "--json")
    assert answer.json()["generations"][0]["model"] == f"declared:{EVIL}"
    assert_harmless(answer.out)


class TestVisible:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Ann",
            "José Ñandú",
            "李小龙",
            "a[red]b",
            "נעמה",
            "👩\u200d👧",
            "x" * 5000,
        ],
    )
    def test_what_people_write_is_left(self, text: str) -> None:
        assert visible(text) == text

    def test_what_takes_effect_is_written_out(self) -> None:
        assert visible("a\x1b[1m\tb\n") == r"a\x1b[1m\tb\n"
        assert visible("\x9b\u202e\u2066\ufeff\u2029") == r"\x9b\u202e\u2066\ufeff\u2029"
        assert visible("\udcff") == r"\udcff"
        assert visible("a\nb\r", keep="\n") == "a\nb\\r"
