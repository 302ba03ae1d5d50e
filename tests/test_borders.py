"""Who may import what: the science does no I/O, the stages know no scheduler."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
PACKAGES = ("ironmask", "pipelines", "infra")
MODULES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("test_*.py"))
SCIENCE = {
    "array_api_compat", "cryptography", "cupy", "ironmask", "numpy", "randomgen", "scipy", "torch",
}  # fmt: skip
IO_MODULES = {
    "asyncio", "ctypes", "fcntl", "glob", "http", "io", "logging", "mmap", "multiprocessing", "os",
    "pathlib", "pickle", "shelve", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess",
    "tempfile", "threading", "urllib",
}  # fmt: skip
WORLD = {
    "aiohttp", "boto3", "botocore", "cryptography", "cv2", "deltalake", "fsspec", "hvac",
    "insightface", "onnx", "onnxruntime", "PIL", "pydantic", "pydantic_settings", "s3fs", "tink",
}  # fmt: skip
# The rooms of `pipelines`, by floor, the lowest first: a module imports its own room and those of
# lower floors. Rooms of one floor do not know each other.
FLOORS = (
    ("ports", "spec"),
    ("table",),
    ("plan",),
    ("shard",),
    ("run",),
    ("preflight",),
    ("setup",),
    (
        "auditing", "capacity", "enrolment", "evaluation", "inversion", "operations", "repairing",
        "reprotection", "verification",
    ),
    ("report",),
    ("api",),
    ("flows",),
    ("cli",),
    ("start",),
)  # fmt: skip
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# From this floor on, ports meet what provides them; everything below sees ports only.
PROVIDED_FROM = FLOOR["setup"]
# What `infra` provides, and the names that it provides it under.
PORTS = {
    "ports", "spec.addresses", "spec.faces", "spec.outcomes", "spec.texts", "table.layout",
    "table.listing", "table.schemas",
}  # fmt: skip
# Only these may name the schedulers.
RAY = {
    "pipelines.run.ray", "pipelines.run.ray_nodes", "pipelines.run.ray_stages",
    "pipelines.run.ray_tasks", "infra.ray_cluster",
}  # fmt: skip
PREFECT = {
    "pipelines.flows.audit", "pipelines.flows.enrol", "pipelines.flows.evaluate",
    "pipelines.flows.invert", "pipelines.flows.reprotect", "pipelines.flows.tasks",
}  # fmt: skip
MOST_ROOMS = 22
MOST_FLAT = 4


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a file's syntax tree, the outer ones first."""
    return list(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


NAMES = {name_of(path): path for path in MODULES}


def modules_used(path: Path) -> set[str]:
    """The project's own modules that a file imports: lazily and for types only as well."""
    found = {full if full in NAMES else full.rpartition(".")[0] for full in imports(path)}
    # A package that something lies in is imported by that.
    inner = {full for full in found if full in NAMES}
    return {name for name in inner if not any(other.startswith(f"{name}.") for other in inner)}


def room_of(name: str) -> str:
    """`pipelines.table.layout` lies in `table`, `pipelines.ports` in `ports`."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_borders(path: Path) -> None:
    name, used = name_of(path), tops(path)
    package = name.split(".")[0]
    assert "pickle" not in used, "pickle for data"
    assert "ray" not in used or name in RAY
    assert "prefect" not in used or name in PREFECT
    if package == "ironmask":
        outside = used - SCIENCE - set(sys.stdlib_module_names)
        assert not outside
        assert not used & IO_MODULES
    if package == "pipelines":
        assert not used & WORLD
    if package == "infra":
        inward = {full for full in modules_used(path) if full.startswith("pipelines.")}
        assert {full.removeprefix("pipelines.") for full in inward} <= PORTS


@pytest.mark.parametrize(
    "path", [p for p in MODULES if name_of(p).startswith("pipelines.")], ids=name_of
)
def test_arrows_between_rooms_go_down(path: Path) -> None:
    room = room_of(name_of(path))
    for used in modules_used(path):
        if used.startswith("infra"):
            assert FLOOR[room] >= PROVIDED_FROM, f"{used}: only ports are seen here"
        elif used.startswith("pipelines.") and room_of(used) != room:
            assert FLOOR[room_of(used)] < FLOOR[room], f"{used} is no lower room"


def test_the_rooms_are_few_and_all_have_their_floor() -> None:
    inside = {name for name in NAMES if name.startswith("pipelines.")}
    rooms = {room_of(name) for name in inside}
    assert rooms == FLOOR.keys()
    assert len(rooms) <= MOST_ROOMS
    flat = [path for path in (ROOT / "pipelines").glob("*.py") if path.stem != "__init__"]
    assert len(flat) <= MOST_FLAT


def test_no_module_is_imported_by_what_it_imports() -> None:
    used = {name: sorted(modules_used(path)) for name, path in NAMES.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a circle: {' -> '.join([*above, name])}"
        if name not in done:
            for other in used[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in NAMES:
        visit(name, ())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_name_is_imported_from_where_it_is_made(path: Path) -> None:
    """No module hands on what another one defines; a package's `__init__` may."""
    for node in nodes(path):
        if not isinstance(node, ast.ImportFrom) or node.module not in NAMES:
            continue
        source = NAMES[node.module]
        if source.stem != "__init__":
            names = {alias.name for alias in node.names}
            assert names <= made_in(source), f"{node.module} does not define {names}"


def made_in(path: Path) -> set[str]:
    """Names that a module defines itself at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            inside = [part for target in targets for part in ast.walk(target)]
            found |= {part.id for part in inside if isinstance(part, ast.Name)}
    return found


@pytest.mark.parametrize(
    "path", [p for p in MODULES if name_of(p).startswith("ironmask")], ids=name_of
)
def test_the_science_opens_no_file_and_prints_nothing(path: Path) -> None:
    tree = nodes(path)
    calls = [node.func for node in tree if isinstance(node, ast.Call)]
    named = {call.id for call in calls if isinstance(call, ast.Name)}
    assert not named & {"open", "print", "input", "exec", "eval"}
    methods = {call.attr for call in calls if isinstance(call, ast.Attribute)}
    assert not methods & {"tofile", "fromfile", "memmap", "save", "savez", "savetxt", "loadtxt"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_seedable_generator(path: Path) -> None:
    """Secrets come from the secure generator; NumPy's default one is not secure."""
    text = path.read_text()
    assert "default_rng" not in text
    assert "np.random.seed" not in text
    # Jitter between two attempts is no secret.
    assert "random" not in set(imports(path)) or name_of(path) in {
        "infra.store.delta",
        "infra.store.s3_client",
    }


def test_only_evaluations_are_replayed() -> None:
    """Nothing that makes stored templates knows a generator that can be made again."""
    users = {name_of(path) for path in MODULES if "ReplayedGenerator" in path.read_text()}
    assert users == {"ironmask.random", "pipelines.evaluation.frozen"}


def test_the_top_level_is_what_it_should_be() -> None:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    known = {"ironmask", "pipelines", "infra", "tests", "deploy"}
    made = {"dist", "build", "demo-out", "bench-out", "faults-out", "s3-data", "__pycache__"}
    assert {name for name in folders if not name.endswith(".egg-info")} - made == known


def folders(place: Path) -> set[str]:
    return {path.name for path in place.iterdir() if path.is_dir() and path.name != "__pycache__"}


def test_tests_of_the_pipelines_lie_in_their_rooms() -> None:
    assert folders(TESTS / "pipelines") <= folders(ROOT / "pipelines")
    assert not list((TESTS / "pipelines").glob("test_*.py"))


def test_what_tests_share_lies_in_one_package() -> None:
    """Beside it lie tests, fixtures, and programs that make stored data, suites or measurements.

    `tests` is on the path, so that an `__init__.py` in `tests/pipelines` would hide the product.
    """
    found = [path.relative_to(TESTS) for path in TESTS.rglob("*.py")]
    beside = [path for path in found if path.parts[0] not in {"support", "faults", "bench"}]
    others = [path for path in beside if not path.name.startswith(("test_", "make_"))]
    assert {path.name for path in others} <= {"conftest.py"}


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_needs_another_test(path: Path) -> None:
    used = tops(path)
    assert not used & {other.stem for other in TEST_FILES}
    assert "faults" not in used or path.parent.name == "faults"


JOBS = (
    "api.audit", "api.enrolment", "api.evaluation", "api.inversion", "api.operations",
    "api.repair", "api.reprotection", "setup.worker", "verification.verifier",
)  # fmt: skip


def test_jobs_run_without_a_scheduler() -> None:
    code = (
        f"import sys, pipelines.{', pipelines.'.join(JOBS)}\n"
        "print(sorted({'ray', 'prefect', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
