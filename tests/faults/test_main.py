"""The program that runs the suites: what it prints, writes and answers."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
from faults.lines import exactly

program = importlib.import_module("faults.__main__")


def suite(monkeypatch, name: str, run) -> None:
    module = ModuleType(f"faults.{name}")
    module.run = run
    monkeypatch.setitem(sys.modules, f"faults.{name}", module)
    monkeypatch.setattr(program, "SUITES", (*program.SUITES, name))


@pytest.fixture(autouse=True)
def _suites(monkeypatch):
    monkeypatch.setattr(program, "SUITES", ())

    def broken(_seed, _folder):
        raise RuntimeError("one | two")

    suite(monkeypatch, "sound", lambda seed, _: [exactly("the seed", seed, seed)])
    suite(monkeypatch, "broken", broken)
    suite(monkeypatch, "wrong", lambda seed, _: [exactly("the seed", seed, seed + 1)])
    suite(monkeypatch, "empty", lambda seed, _: [])


def test_what_holds(tmp_path, capsys):
    out = tmp_path / "out"
    assert program.main(["--only=sound", "--seed=7", f"--out={out}"]) == 0
    text = (out / "faults.md").read_text()
    assert "## sound (seed 7, 0 s)" in text
    assert "| the seed | 7 | 7 | ok |" in text
    assert "| the seed | 7 | 7 | ok |" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["broken", "wrong", "empty"])
def test_what_does_not_hold(name, tmp_path):
    assert program.main([f"--only={name}", f"--out={tmp_path}"]) == 1


def test_a_suite_that_raises_does_not_end_the_others(tmp_path):
    assert program.main(["--only=broken,sound", f"--out={tmp_path}"]) == 1
    text = (tmp_path / "faults.md").read_text()
    assert r"RuntimeError: one \| two" in text
    assert "## sound" in text


def test_a_suite_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(program, "SUITES", ("sound", "no_such_suite"))
    assert program.main([f"--out={tmp_path}"]) == 1
    assert "no_such_suite" in capsys.readouterr().err


def test_an_unknown_suite(capsys):
    with pytest.raises(SystemExit, match="2"):
        program.main(["--only=unheard"])
    assert "unheard" in capsys.readouterr().err
