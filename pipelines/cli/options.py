"""What the parts of the command line share: exit codes, common options, where words go."""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from ironmask.errors import ParameterError
from ironmask.params import DEFAULT_PRESET, MIN_N, PRESETS, preset
from pipelines.spec.addresses import scrubbed
from pipelines.spec.options import names
from pipelines.spec.outcomes import Reason
from pipelines.spec.texts import visible

if TYPE_CHECKING:
    from pipelines.run.summary import Summary

# What all errors of arguments are; the library does not give it a public name.
_UsageError: Final[Any] = typer.BadParameter.__bases__[0]

# Who has faces of several people, and what becomes of these.
_DISAGREEMENT: Final = {
    Reason.OTHER_FACE.value: ("have faces of somebody else among theirs", "left out"),
    Reason.FACES_DISAGREE.value: (
        "have faces of which no more than half are of one person", "and nobody enrolled",
    ),
}  # fmt: skip


def _presets() -> str:
    """The presets with their bits, for embeddings of the usual width."""
    *some, last = (f"{name} ({preset(name).bits:.0f} bits)" for name in PRESETS)
    return f"{', '.join(some)} or {last}"


EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_PARTIAL: Final = 3
EXIT_REJECTED: Final = 4
EXIT_INTERRUPTED: Final = 130

ENROL_PANEL: Final = "Enrol and verify"
EVALUATE_PANEL: Final = "Evaluate and audit"
OPERATE_PANEL: Final = "Operate"
RENEW_PANEL: Final = "Renew and erase"
MODELS_PANEL: Final = "Models"

Dest = Annotated[str, typer.Argument(metavar="DEST", help="The table.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SRC",
        help="Folder tree <subject>/<image>, a manifest (.csv or .parquet with subject_id and "
        "uri), or a Parquet of embeddings (subject_id, embedding).",
    ),
]
NewDest = Annotated[
    str, typer.Argument(metavar="DEST", help="Folder or s3:// prefix of the table.")
]
Kind = Annotated[str, typer.Option(help="Kind of SRC: auto, folder, manifest or embeddings.")]
DetSizes = Annotated[
    list[int] | None,
    typer.Option(
        "--det-size",
        help="Detector sizes in pixels; the next is tried where no face was found.",
    ),
]
Vault = Annotated[
    bool,
    typer.Option(
        "--vault",
        help="Keep the embeddings as well, encrypted, so that templates can be made anew "
        "without the photos. Whoever gets them and their keys has everybody for good.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
Keys = Annotated[
    str | None,
    typer.Option(help="Keyset file. Default: IRONMASK_KEYS, else the user's configuration folder."),
]
VaultKeys = Annotated[
    str | None,
    typer.Option(help="Keyset file of the vault. Default: beside that of the templates."),
]
Model = Annotated[
    str | None, typer.Option(help="Model pack's name, or a folder that holds its ONNX files.")
]
Provider = Annotated[
    str | None, typer.Option(help="Where models run: cpu, cuda or tensorrt. A new table: cpu.")
]

Executor = Annotated[str, typer.Option(help="ray, or local (this process alone).")]
Workers = Annotated[
    int | None,
    typer.Option(help="Shards done at a time, at most. Default: one a core.", min=1),
]
Embedders = Annotated[
    int | None,
    typer.Option(
        help="Processes that hold the models, apart from the workers. Default: as many as the "
        "GPUs have room for; none on CPUs, where each worker holds its own.",
        min=0,
    ),
]
GpuFraction = Annotated[
    float,
    typer.Option(help="Share of a GPU that each process with models reserves: above 0, at most 1."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="A running cluster: host:port beside one of its nodes, ray://host:port from anywhere. "
        "Default: one made for this run."
    ),
]
MetricsPort = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS:]PORT",
        help="Serve the run's figures here, as Prometheus reads them. A port alone can be reached "
        "from this machine only. Default: IRONMASK_METRICS_PORT, else nowhere.",
    ),
]
Prefect = Annotated[
    bool | None,
    typer.Option(
        "--prefect/--no-prefect",
        help="Run as a Prefect flow. Default: where PREFECT_API_URL is set.",
    ),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart",
        help="Close an unfinished run as it stands, and plan afresh what it left undone.",
    ),
]

AllowRoots = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-root",
        metavar="FOLDER",
        help="Where inputs may lie, beside SRC's own folder. Several: once for each.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help=f"The parameters by one name: {_presets()}. The next four options override it. A new "
        f"table: {DEFAULT_PRESET}."
    ),
]
Alpha = Annotated[int | None, typer.Option(help="Non-zero entries of a codeword.")]
Tolerance = Annotated[int | None, typer.Option(help="Places that may disagree.")]
CodeWidth = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Entries of a codeword: as many as the embedding has, or more. The wider, the more "
        "faces are accepted, of strangers too.",
        min=MIN_N,
    ),
]
Structure = Annotated[
    str | None,
    typer.Option(
        help="real, or quaternionic: a quarter of a helper's bytes, where 4 divides both widths. "
        "Default: that of the preset; for another code width quaternionic where it can be."
    ),
]
Fmr = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        help="Instead of a preset: at most this false match rate, by its 95 % bound. Of the "
        "settings that keep to it (`ironmask settings`) the one that accepts most is taken. Rates "
        "are those of --calibration, else of SRC's embeddings, else of w600k_mbf on LFW.",
    ),
]
Photos = Annotated[
    int | None,
    typer.Option(
        help="With --fmr: photos of a person, typically. Default: 1. Rates that come with the "
        "package go to 5; those stand for more photos too.",
        min=1,
    ),
]
FloorBits = Annotated[
    float | None,
    typer.Option(help="With --fmr: the least bits against guessing. Default: 80.", min=0),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        help="How helpers are written: int8, float32, float16, bits6, bits5, bits4. A new table: "
        "int8."
    ),
]
Centring = Annotated[
    str | None,
    typer.Option(
        help="How several images become one template: mean or regression. A new table: mean."
    ),
]
ShardSize = Annotated[
    int | None, typer.Option(help="Inputs in one unit of work. A new table: 256.", min=1)
]
Filling = Annotated[
    float | None,
    typer.Option(
        "--fill",
        help="Share of a template's energy that becomes noise where the model's embeddings are "
        "not, against the search of a stolen row. 0.2 costs some points of acceptance.",
        min=0,
        max=0.9,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="PARQUET",
        help="Embeddings of the same model, by which the worth of a stolen row is measured; "
        "those of one subject_id are one person's. Default: SRC, where it holds embeddings.",
    ),
]
AcceptedRisk = Annotated[
    str | None,
    typer.Option(
        "--accept-risk", metavar="NAME", help="Take a risk that is refused otherwise, by its name."
    ),
]
Agreement = Annotated[
    float | None,
    typer.Option(
        metavar="FMR",
        help="Faces of one subject must be as alike as this share of pairs of strangers, or they "
        "are other faces: from 1e-5 to .1. Default: 1e-3.",
    ),
]
NoAgreement = Annotated[
    bool,
    typer.Option(
        "--no-agreement", help="Do not ask whether faces of one subject are one person's."
    ),
]


def chosen(given: dict[str, Any], request: type) -> dict[str, Any]:
    """The options of a command that are a request's own, as far as they were chosen.

    given: the command's parameters by name, which are the request's flat names.
    """
    known = names(request)
    return {name: value for name, value in given.items() if name in known and value is not None}


def say(text: str) -> None:
    """A line for people, beside the output."""
    typer.echo(visible(scrubbed(text)), err=True)


def tell(text: str) -> None:
    """A line for people, as the output."""
    typer.echo(visible(scrubbed(text)))


def asked_agreement(fmr: float | None, *, without: bool) -> float | None:
    """What --agreement and --no-agreement say: a false match rate, 0 for no test, None where both
    are left out. Raises `ParameterError` for both.
    """
    if without and fmr is not None:
        raise ParameterError("--agreement and --no-agreement exclude each other: leave one out")
    return 0.0 if without else fmr


def say_disagreement(summary: Summary, *, kept: bool) -> None:
    """Warn of people who have faces of others among theirs. kept: these are used all the same."""
    for reason, people in summary.disagreement.items():
        inputs, words = summary.reasons[reason], _DISAGREEMENT[reason]
        became = "used all the same" if kept else words[1]
        say(f"WARNING: {people:,} people {words[0]}: {inputs:,} inputs, {became} ({reason})")


def console(*, stderr: bool = False) -> Console:
    """Names come from files: nothing in them is markup, and no sign of theirs takes effect."""
    return _Console(stderr=stderr, markup=False, emoji=False)


class _Console(Console):
    """Every text that is printed, in a table or not, passes through here."""

    def render_str(self, text: str, **choices: Any) -> Text:
        """As `Console.render_str`, of a text whose control characters are written out."""
        return super().render_str(visible(text, keep="\n"), **choices)


class Group(TyperGroup):
    """The command: what it says of wrong arguments quotes them, and they may hold anything."""

    def make_context(self, *arguments: Any, **choices: Any) -> Any:
        """As a group does it."""
        try:
            return super().make_context(*arguments, **choices)
        except _UsageError as error:
            error.message = visible(scrubbed(error.message))
            raise

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """As a group does it; a terminal breaks the lines of its help, not the source."""
        found = super().get_command(ctx, cmd_name)
        if found is not None and found.help:
            found.help = "\n\n".join(" ".join(p.split()) for p in found.help.split("\n\n"))
        return found

    def invoke(self, ctx: Any) -> Any:
        """As a group does it."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            error.message = visible(scrubbed(error.message))
            raise


def guard_terminal() -> None:
    """Write out control characters in what nobody catches, and in logs that nobody set up."""
    sys.excepthook = _print_error
    if logging.lastResort:
        logging.lastResort.setFormatter(_VisibleFormatter())


def _print_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    lines = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(visible(scrubbed(lines), keep="\n"))


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(scrubbed(super().format(record)), keep="\n")
