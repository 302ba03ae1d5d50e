"""The project's own files: what documents say works, the lock is whole, nothing names a host."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import tomllib
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import commands_page, documents, presets_table
from support.documents import GENERATED, ROOT, blocks, commands
from support.examples import people, write_faces

from ironmask.helper import DEFAULT_ENCODING, nbytes
from ironmask.params import DEFAULT_PRESET, preset
from pipelines.auditing.request import AuditRequest
from pipelines.enrolment.request import EnrolRequest
from pipelines.evaluation.request import EvaluateRequest
from pipelines.inversion.request import InvertEvaluateRequest, InvertFitRequest
from pipelines.reprotection.request import ReprotectRequest
from pipelines.spec.options import names

TEXTS = documents.texts()
WRITTEN = documents.written()
ALL = "\n".join(WRITTEN.values())
README = TEXTS["README.md"]
LIBRARY = TEXTS["deploy/docs/library.md"]
LOCK = (ROOT / "requirements.lock").read_text()
LONGEST_README = 170
# Of other programs that the documents name.
FOREIGN = {"--all", "--help", "--no-deps", "--prefect-file", "--require-hashes"}
# What no test can have: a key service, another cluster, a scheduler's server.
OUT_OF_REACH = ("aws-kms://", "gcp-kms://", "hcvault://", "--ray-address", "--prefect")
PEOPLE = people(50)


@pytest.mark.parametrize("name", commands())
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"| `{name}` |" in README


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= LONGEST_README


def test_the_page_of_commands_is_what_the_command_line_says() -> None:
    assert TEXTS[GENERATED] == commands_page.page(), "stale: `make docs` writes it anew"


@pytest.mark.parametrize("name", WRITTEN)
def test_every_option_that_a_document_names_exists(name: str) -> None:
    known = {o for c in commands().values() for p in c.params for o in (*p.opts, *p.secondary_opts)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", WRITTEN[name]))
    assert named <= known | FOREIGN


def command_lines() -> list[Any]:
    return [
        pytest.param(line, id=f"{Path(name).stem}: {' '.join(documents.arguments(line))}")
        for name, text in WRITTEN.items()
        for language in ("sh", "text")
        for block in blocks(text, language)
        for line in documents.ironmask_lines(block)
    ]


@pytest.mark.parametrize("line", command_lines())
def test_the_command_line_takes_every_command_that_is_printed(line: str) -> None:
    documents.parse(documents.arguments(line))


def test_a_command_with_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--modle"):
        documents.parse(documents.arguments("ironmask enroll photos/ table/ --modle x"))


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_not_run_could_not_be(name: str) -> None:
    text = WRITTEN[name]
    assert documents.languages(text) <= {"", "sh", "text", "python", "toml"}
    for block in blocks(text, ""):
        assert not documents.ironmask_lines(block), "a command in a drawing"
    for block in blocks(text, "text"):
        for line in documents.ironmask_lines(block):
            assert any(word in line for word in OUT_OF_REACH), f"a test can run this: {line}"


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXTS[name]):
        assert "://" in target or ((ROOT / name).parent / target).is_file(), target


def test_the_readme_leads_to_every_document() -> None:
    assert {name for name in TEXTS if name != "README.md" and f"({name})" not in README} == set()


def test_every_option_explains_itself() -> None:
    for name, command in commands().items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


@pytest.mark.parametrize(
    "name", ["demo", "test", "test-slow", "check", "bench", "faults", "s3-up", "docs"]
)
def test_every_target_of_the_readme_exists(name: str) -> None:
    assert f"`make {name}`" in README or f"make {name} " in README
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", TEXTS["deploy/docs/glossary.md"], re.MULTILINE)
    words = [word.lower() for word, _ in rows[2:]]
    assert words == sorted(set(words))


@pytest.mark.parametrize("block", blocks(TEXTS["deploy/docs/settings.md"], "toml"))
def test_the_settings_that_are_printed_are_settings(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra import settings

    for name in [name for name in os.environ if name.startswith("IRONMASK_")]:
        monkeypatch.delenv(name)
    (tmp_path / "ironmask.toml").write_text(block)
    monkeypatch.chdir(tmp_path)
    found, storage = settings.load()
    said = tomllib.loads(block)
    for part, values in ((found, {**said, "s3": None}), (storage, said["s3"])):
        for name in values.keys() - {"s3"}:
            assert str(getattr(part, name)) == str(values[name]), name


def test_every_setting_is_documented() -> None:
    from infra.settings import Settings, StorageSettings

    text = TEXTS["deploy/docs/settings.md"]
    assert [n for n in Settings.model_fields if f"`IRONMASK_{n.upper()}`" not in text] == []
    own = [name.upper() for name in StorageSettings.model_fields]
    assert [n for n in own if f"`_{n}`" not in text and f"`IRONMASK_S3_{n}`" not in text] == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the examples find: embeddings of some people, of a model that fills a part of its space.

    No setting of the user reaches them, and no keys are left in the user's folders.
    """
    for name in [n for n in os.environ if n.startswith("IRONMASK_") or n == "PREFECT_API_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("IRONMASK_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    write_faces(tmp_path / "embeddings.parquet", PEOPLE)
    return tmp_path


def run(name: str) -> dict[str, Any]:
    """Run the examples of a document, which go on from each other; the names that they leave."""
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks(TEXTS[name], "python"), 1):
        exec(compile(block, f"{name}, example {number}", "exec"), names)  # noqa: S102
    return names


def test_the_example_of_the_readme_runs(folder: Path) -> None:
    assert run("README.md")["answers"] == [True]


@pytest.mark.slow
def test_the_library_examples_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = run("deploy/docs/library.md")
    assert len(names["own"]) == len(names["others"]) == len(PEOPLE) * 10
    assert sum(names["own"]) > 0.95 * len(names["own"])
    assert not any(names["others"])
    assert f"{len(PEOPLE)} subjects enrolled, 0 inputs failed" in capsys.readouterr().out
    assert (folder / "report" / "report.html").stat().st_size > 0
    assert type(names["row"]).__name__ == "ProtectedTemplate"
    assert names["found"].cosine(names["embeddings"][0]) > 0.999
    assert (folder / "audit" / "report.html").stat().st_size > 0


def test_examples_lie_where_they_are_run() -> None:
    having = {name for name, text in WRITTEN.items() if blocks(text, "python")}
    assert having == {"README.md", "deploy/docs/library.md"}


def test_the_whole_program_is_a_short_one() -> None:
    lines = blocks(LIBRARY, "python")[0].splitlines()
    assert len([line for line in lines if line.strip()]) <= 20


def signatures() -> list[Any]:
    found = re.findall(r"^`pipelines\.(\w+)\((.*)\)`$", LIBRARY, re.MULTILINE)
    return [pytest.param(name, arguments, id=name) for name, arguments in found]


@pytest.mark.parametrize(("name", "printed"), signatures())
def test_the_signatures_that_are_printed_are_real(name: str, printed: str) -> None:
    import pipelines

    real = inspect.signature(getattr(pipelines, name)).parameters
    given = ast.parse(f"def f({printed}): pass").body[0].args
    first = [argument.arg for argument in given.args]
    assert first == [n for n, p in real.items() if p.kind is not p.KEYWORD_ONLY][: len(first)]
    named = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    keywords = {argument.arg: ast.literal_eval(value) for argument, value in named}
    assert keywords == {n: real[n].default for n in keywords if n in real}
    if not given.kwarg:
        assert {*first, *keywords} == real.keys()


def test_every_verb_is_in_the_library_page() -> None:
    import pipelines

    verbs = {n for n in pipelines.__all__ if n[0].islower() or n == "Verifier"}
    assert verbs == {parameters.values[0] for parameters in signatures()}


def test_presets_are_what_the_documents_say() -> None:
    assert presets_table.table() in TEXTS[presets_table.PLACE], "stale: `make docs` writes it anew"
    helper = ceil(nbytes(preset(DEFAULT_PRESET), DEFAULT_ENCODING) / 1024)
    assert f"{helper} KiB with this preset" in LIBRARY


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
        "invert_flow": InvertEvaluateRequest,
        "reprotect_flow": ReprotectRequest,
    }
    for deployment in found["deployments"]:
        path, name = deployment["entrypoint"].split(":")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        flow = getattr(module, name)
        flow.validate_parameters(deployment["parameters"])
        assert set(deployment["parameters"]["request"]) <= names(requests[name])
        for fit in deployment["parameters"].get("fits", []):
            assert set(fit) <= names(InvertFitRequest)
