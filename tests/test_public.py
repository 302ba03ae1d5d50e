"""The public face: the verbs of the command line, and nothing else, with the same options."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support import documents
from support.enrolling import several

import pipelines
from ironmask.errors import ParameterError
from pipelines.api import options
from pipelines.api.enrolment import NothingToDo
from pipelines.auditing.request import AuditRequest
from pipelines.enrolment.request import EnrolRequest
from pipelines.evaluation.request import EvaluateRequest
from pipelines.inversion.request import InvertEvaluateRequest, InvertFitRequest
from pipelines.repairing.request import RepairRequest
from pipelines.reprotection.request import ReprotectRequest
from pipelines.run.summary import Summary
from pipelines.spec.options import names

ROOT = Path(__file__).parents[1]
# What only the command line has: how it answers, and where it runs.
OF_THE_COMMAND = {
    "abandon", "as_json", "as_csv", "dry_run", "floor_bits", "max_failures", "metrics_port",
    "no_agreement", "prefect", "threat",
}  # fmt: skip
# Verbs, their requests, their options, and what is positional.
REQUESTS: list[tuple[str, type, Any, set[str]]] = [
    ("enroll", EnrolRequest, options.EnrolOptions, {"source", "dest"}),
    ("reprotect", ReprotectRequest, options.ReprotectOptions, {"dest", "purpose"}),
    ("repair", RepairRequest, options.RepairOptions, {"dest", "source"}),
    ("evaluate", EvaluateRequest, options.EvaluateOptions, {"source", "out"}),
    ("audit", AuditRequest, options.AuditOptions, {"tables", "source", "out"}),
    ("invert_fit", InvertFitRequest, options.InvertFitOptions, {"faces", "out"}),
    (
        "invert_evaluate",
        InvertEvaluateRequest,
        options.InvertEvaluateOptions,
        {"faces", "out", "inverters"},
    ),
]
VERBS = [verb for verb, *_ in REQUESTS]
# Of the command line alone, or in Python of another kind.
NO_VERBS = {"models_list", "models_pull", "demo", "verify"}


def commands() -> dict[str, Any]:
    """Commands by the names of their verbs."""
    return {
        name.removeprefix("ironmask ").replace("-", "_").replace(" ", "_"): command
        for name, command in documents.commands().items()
    }


def test_the_verbs_are_the_commands() -> None:
    found = commands().keys() - NO_VERBS
    assert set(pipelines.__all__) == found | {"Verifier"}
    assert list(pipelines.__all__) == sorted(pipelines.__all__)


@pytest.mark.parametrize("name", pipelines.__all__)
def test_a_verb_is_documented(name: str) -> None:
    verb = getattr(pipelines, name)
    assert inspect.getdoc(verb)
    assert ">>>" in str(inspect.getdoc(verb)), "no example"


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'identify'"):
        getattr(pipelines, "identify")  # noqa: B009


@pytest.mark.parametrize(("verb", "request_", "typed", "positional"), REQUESTS, ids=VERBS)
def test_options_are_those_of_the_request(verb, request_, typed, positional) -> None:
    known = set(typed.__annotations__)
    assert known <= names(request_) - positional
    # Of processes with models, a job without models has none.
    assert names(request_) - positional - known <= {"embedders", "gpu_fraction"}


@pytest.mark.parametrize(("verb", "request_", "typed", "positional"), REQUESTS, ids=VERBS)
def test_options_are_those_of_the_command(verb, request_, typed, positional) -> None:
    of_the_command = OF_THE_COMMAND - names(request_)
    given = {parameter.name for parameter in commands()[verb].params} - of_the_command
    assert given - {"help"} <= names(request_)
    fine = {"det_threshold", "min_face", "min_sharpness", "min_norm", "max_pixels", "max_bytes"}
    assert set(typed.__annotations__) - given <= fine


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        ("rekey", "purpose"), ("rotate_mac", "purpose"), ("reprotect", "purpose"),
        ("rekey", "model"), ("rotate_mac", "vault"), ("evaluate", "embedders"),
        ("audit", "embedders"), ("enroll", "max_failures"), ("repair", "preset"),
        ("invert_fit", "embedders"), ("invert_evaluate", "device"),
    ],
)  # fmt: skip
def test_an_option_of_another_verb_is_refused(verb: str, option: str) -> None:
    """Also where the request that they share has it: `purpose` would make another verb of it."""
    places = {
        "enroll": ("s", "d"), "repair": ("d", "s"), "evaluate": ("s", "o"),
        "audit": (["d"], "s", "o"), "invert_fit": ("f", "o"), "invert_evaluate": ("f", "o", ["i"]),
    }  # fmt: skip
    with pytest.raises(ParameterError, match=f"no option {option} here; the options are"):
        getattr(pipelines, verb)(*places.get(verb, ("d",)), **{option: None})


def test_one_alone_is_no_list() -> None:
    """The letters of an id may be ids of other people."""
    with pytest.raises(ParameterError, match="list"):
        pipelines.erase("table", "12")
    with pytest.raises(ParameterError, match="list"):
        pipelines.failures("table", reasons="no_face")
    with pytest.raises(ParameterError, match="tables is of type str: it must be list"):
        pipelines.audit("table", "source", "out")


def test_no_table_is_no_audit() -> None:
    with pytest.raises(ParameterError, match="no table to audit"):
        pipelines.audit([], "source", "out")


@pytest.mark.parametrize("subject", ["", "\udcff"])
def test_what_is_no_id_is_not_proven_to_be_gone(subject: str) -> None:
    with pytest.raises(ParameterError, match="no subject's id"):
        pipelines.prove("table", subject=subject)


def test_who_has_a_template_is_skipped_and_nothing_failed_is_nothing_to_do(tmp_path: Path) -> None:
    place = str(several(tmp_path / "e.parquet", 2)), str(tmp_path / "table")
    keys = str(tmp_path / "keys.json")
    pipelines.enroll(*place, keys=keys, executor="local")
    again = pipelines.enroll(*place, keys=keys, executor="local")
    assert isinstance(again, Summary)
    assert (again.used, again.skipped) == (0, again.inputs)
    for found in (
        pipelines.enroll(*place, keys=keys, executor="local", retry=["all"]),
        pipelines.enroll(*place, keys=keys, executor="local", retry=["all"], dry_run=True),
    ):
        assert isinstance(found, NothingToDo)


def test_help_is_written_once() -> None:
    """An option of several commands is declared in one place."""
    declared: dict[tuple[str, str], set[str]] = {}
    for path in (ROOT / "pipelines" / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for argument in node.args.args:
                    written = ast.unparse(argument.annotation) if argument.annotation else ""
                    if written.startswith("Annotated["):
                        declared.setdefault((argument.arg, written), set()).add(node.name)
    twice = {name: verbs for (name, _), verbs in declared.items() if len(verbs) > 1}
    assert not twice


STEPS_STAND_IN = {
    "pipelines/api/audit.py", "pipelines/api/evaluation.py", "pipelines/api/inversion.py",
    "pipelines/reprotection/job.py", "pipelines/run/template_run.py",
}  # fmt: skip
FOLLOWED_IN = {
    "pipelines/api/audit.py", "pipelines/api/capacity.py", "pipelines/api/enrolment.py",
    "pipelines/api/evaluation.py", "pipelines/api/inversion.py", "pipelines/api/reprotection.py",
    "pipelines/repairing/job.py",
}  # fmt: skip


def calls(path: Path) -> set[str]:
    """Names of what a module calls."""
    found = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    return {getattr(called, "id", getattr(called, "attr", "")) for called in found}


def test_the_steps_of_each_job_stand_once() -> None:
    """One list of steps a job; the library, the flows and the command line take those."""
    by_module = {str(p.relative_to(ROOT)): calls(p) for p in (ROOT / "pipelines").rglob("*.py")}
    assert {name for name, called in by_module.items() if "Step" in called} == STEPS_STAND_IN
    above = {name: called for name, called in by_module.items() if "/table/" not in name}
    assert {name for name, called in above.items() if "follow" in called} == FOLLOWED_IN
    for name, called in by_module.items():
        if name.startswith(("pipelines/cli/", "pipelines/flows/")):
            assert not called & {"prepare_plan", "write_rates", "write_audit", "measure"}, name


def test_verbs_load_what_they_need_and_no_more() -> None:
    """What takes long to load is loaded by those who use it: models, Ray, plots, an S3 client."""
    code = (
        "import sys, pipelines\n"
        "for name in pipelines.__all__: getattr(pipelines, name)\n"
        "import pipelines.enrolment.hold, pipelines.setup.hold, pipelines.evaluation.job\n"
        "heavy = {'ray', 'prefect', 'torch', 'onnxruntime', 'matplotlib', 's3fs', 'scipy.stats'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution() -> None:
    import ironmask

    assert ironmask.__version__ == version("ironmask")


@pytest.mark.parametrize("package", ["ironmask", "pipelines", "infra"])
def test_types_are_for_others_too(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
