"""The shape of the code: short functions, few parameters, small modules, small dataclasses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    p for name in ("ironmask", "pipelines", "infra") for p in (ROOT / name).rglob("*.py")
)
IDS = [str(path.relative_to(ROOT)) for path in MODULES]
COMMANDS = ROOT / "pipelines" / "cli"
MOST_LINES = 350
LONGEST = 60
MOST_PARAMETERS = 8
MOST_FIELDS = 12
MEDIAN, P90 = 8, 24


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_command(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Command-line signatures name every option, so they are as long as these are many."""
    return path.is_relative_to(COMMANDS) and "as_json" in {a.arg for a in node.args.args}


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or 0) - node.body[0].lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_a_module(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES
    for node in functions(path):
        arguments = node.args
        count = len(arguments.args) + len(arguments.kwonlyargs) + len(arguments.posonlyargs)
        if is_command(path, node):
            assert body_lines(node) <= LONGEST, node.name
        else:
            assert lines(node) <= LONGEST, node.name
            assert count <= MOST_PARAMETERS, node.name


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_large_dataclasses_say_why(path: Path) -> None:
    source = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(source))):
        if isinstance(node, ast.ClassDef) and any(
            "dataclass" in ast.dump(d) for d in node.decorator_list
        ):
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            above = source[node.decorator_list[0].lineno - 2]
            assert len(fields) <= MOST_FIELDS or above.startswith("# Flat, since"), node.name


def test_functions_are_short() -> None:
    sizes = sorted(lines(node) for path in MODULES for node in functions(path))
    assert median(sizes) <= MEDIAN
    assert sizes[int(0.9 * len(sizes))] <= P90
