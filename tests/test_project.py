"""The project's own files: what the README says works, the lock is whole, nothing names a host."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from pipelines import cli
from pipelines.auditing.request import AuditRequest
from pipelines.enrolment.request import EnrolRequest
from pipelines.evaluation.request import EvaluateRequest
from pipelines.reprotection.request import ReprotectRequest
from pipelines.spec.options import names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LOCK = (ROOT / "requirements.lock").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> dict[str, Any]:
    """Every command of the command line by its full name."""
    root = typer.main.get_command(cli.app)
    found: dict[str, Any] = {}

    def walk(group: Any, name: str) -> None:
        for word, command in getattr(group, "commands", {}).items():
            full = f"{name} {word}"
            if getattr(command, "commands", None):
                walk(command, full)
            else:
                found[full] = command

    walk(root, "ironmask")
    return found


@pytest.mark.parametrize("name", commands())
def test_every_command_is_in_the_readme(name: str) -> None:
    assert name in README


def test_every_option_that_the_readme_names_exists() -> None:
    known = {opt for command in commands().values() for p in command.params for opt in p.opts}
    ours = "\n".join(line for line in README.splitlines() if not line.startswith("uv "))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours))
    assert named <= known | {"--no-prefect", "--prefect", "--help"}


def test_every_option_explains_itself() -> None:
    for name, command in commands().items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize("name", ["demo", "test", "test-slow", "check", "bench", "faults", "s3-up"])
def test_every_target_of_the_readme_exists(name: str) -> None:
    assert f"`make {name}`" in README or f"make {name} " in README
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_library_examples_run() -> None:
    example, attack = blocks("python")
    names: dict[str, object] = {}
    exec(example, names)  # noqa: S102
    assert type(names["row"]).__name__ == "ProtectedTemplate"
    names = {}
    exec(attack, names)  # noqa: S102
    found: Any = names["found"]
    embeddings: Any = names["embeddings"]
    assert found.cosine(embeddings[0]) > 0.999


def test_presets_have_the_bits_that_the_readme_says() -> None:
    from ironmask import PRESETS, preset

    for name in PRESETS:
        params = preset(name)
        row = rf"\| `{name}`[^|]*\| {params.alpha} \| {params.tolerance} \| {params.bits:.1f} \|"
        assert re.search(row, README)


def test_the_lock_pins_every_dependency_with_hashes_and_names_no_address() -> None:
    assert "://" not in LOCK
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    pinned = {re.match(r"[\w.-]+", entry).group().lower().replace("_", "-") for entry in entries}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["cpu"], *extras["dev"]]:
        assert re.match(r"[\w.-]+", requirement).group().lower() in pinned


def test_no_file_names_a_registry_or_a_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    host = re.compile(
        "|".join(["pypi[.]org", "files[.]python", "registry[.]npm", "/[r]oot/", "/[h]ome/"])
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            assert path.stat().st_size < 1 << 20, name
            assert not host.search(path.read_text(errors="replace")), name


def test_the_deployment_starts_the_flow_with_what_it_takes() -> None:
    found = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text())
    requests = {
        "enrol_flow": EnrolRequest,
        "evaluate_flow": EvaluateRequest,
        "audit_flow": AuditRequest,
        "reprotect_flow": ReprotectRequest,
    }
    for deployment in found["deployments"]:
        path, name = deployment["entrypoint"].split(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        flow = getattr(module, name)
        flow.validate_parameters(deployment["parameters"])
        assert set(deployment["parameters"]["request"]) <= names(requests[name])
