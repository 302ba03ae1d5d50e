"""Who may import what: the science does no I/O, the stages know no scheduler."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ironmask", "pipelines", "infra")
MODULES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
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
# Where ports meet what provides them; everything else in pipelines sees ports only.
COMPOSITION = {
    "wiring", "start", "calibrate", "operate", "places", "evaluate", "evaluate_request", "audit",
    "audit_request", "cli", "cli_operate", "reprotect_request", "cli_reprotect",
    "cli_evaluate", "cli_audit", "demo", "flows.enrol", "flows.evaluate", "flows.audit",
    "flows.reprotect", "flows.notify",
}  # fmt: skip
PORTS = {"ports", "layout", "records", "reasons", "face_settings"}
# Only these may name the schedulers.
RAY = {"pipelines.run_ray", "infra.ray_cluster"}
PREFECT = {
    "pipelines.flows.audit", "pipelines.flows.enrol", "pipelines.flows.evaluate",
    "pipelines.flows.reprotect",
}  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


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
        known = name.removeprefix("pipelines.") in COMPOSITION
        assert "infra" not in used or known
    if package == "infra":
        inward = {full.split(".")[1] for full in imports(path) if full.startswith("pipelines.")}
        assert inward <= PORTS


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[-2] == "ironmask"], ids=name_of)
def test_the_science_opens_no_file_and_prints_nothing(path: Path) -> None:
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"open", "print", "input", "exec", "eval"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_seedable_generator(path: Path) -> None:
    """Secrets come from the secure generator; NumPy's default one is not secure."""
    text = path.read_text()
    assert "default_rng" not in text
    assert "np.random.seed" not in text
    # Jitter between two attempts is no secret.
    assert "random" not in set(imports(path)) or name_of(path) in {"infra.delta", "infra.s3_client"}


def test_only_evaluations_are_replayed() -> None:
    """Nothing that makes stored templates knows a generator that can be made again."""
    users = {name_of(path) for path in MODULES if "ReplayedGenerator" in path.read_text()}
    assert users == {"ironmask.random", "pipelines.evaluation.job"}


def test_the_top_level_is_what_it_should_be() -> None:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    known = {"ironmask", "pipelines", "infra", "tests", "deploy"}
    made = {"dist", "build", "demo-out", "bench-out", "faults-out", "s3-data", "__pycache__"}
    assert {name for name in folders if not name.endswith(".egg-info")} - made == known


@pytest.mark.parametrize(
    "module", ["stages", "finish", "plan", "commit", "planning", "enrol", "run_local"]
)
def test_the_job_runs_without_a_scheduler(module: str) -> None:
    code = (
        f"import sys, pipelines.{module}\n"
        "print(sorted({'ray', 'prefect', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
