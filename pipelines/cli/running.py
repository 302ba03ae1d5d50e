"""How the commands of jobs run: logging, an answer for machines or for people, an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import typer
from rich.console import Console

from pipelines.cli.options import EXIT_PARTIAL, console, say

if TYPE_CHECKING:
    from pipelines.capacity.brief import Brief
    from pipelines.run.begin import Forecast
    from pipelines.run.summary import Summary

T = TypeVar("T")
P = TypeVar("P")


class Checked(Protocol):
    """A job that is checked, whose settings say how it logs."""

    @property
    def settings(self) -> Any: ...


def begin(prepared: Checked) -> None:
    """Log as the user's settings say."""
    from infra.telemetry import configure_logging

    configure_logging(prepared.settings.log_level, prepared.settings.log_format)


def watched(prepared: P, metrics_port: str | None) -> P:
    """A job whose figures can be scraped where --metrics-port says, else where the settings say.

    Raises `ParameterError` for what is no port.
    """
    from infra.exposition import place_of

    settings: Any = cast(Checked, prepared).settings
    if metrics_port is not None:
        settings = settings.model_copy(update={"metrics_port": metrics_port})
    if settings.metrics_port is not None:
        place_of(settings.metrics_port)
    return cast(P, replace(cast(Any, prepared), settings=settings))


def answer(
    done: T, as_json: bool, plain: Callable[[T], Any], shown: Callable[[T, Console], object]
) -> None:
    """Print what was done: its plain values as JSON, or as people read it."""
    if as_json:
        typer.echo(json.dumps(plain(done), default=str))
    else:
        shown(done, console())


def forecast(found: Forecast, as_json: bool, brief: Brief | None = None) -> None:
    """Print what a run would do and take, and warn of what its source looks like."""
    from pipelines.report.capacity import brief_facts
    from pipelines.report.terminal import print_forecast

    for line in found.warnings:
        say(f"WARNING: {line}")

    def plain(found: Forecast) -> dict[str, Any]:
        return {**asdict(found), **({"capacity": asdict(brief)} if brief else {})}

    def shown(found: Forecast, console: Console) -> None:
        print_forecast(found, console, brief_facts(brief) if brief else [])

    answer(found, as_json, plain, shown)


def end(shortfall: str) -> None:
    """End with the exit code of what is complete and not all that was asked for, if it is so."""
    if shortfall:
        say(shortfall)
        raise typer.Exit(EXIT_PARTIAL)


def say_excluded(summary: Summary | None) -> None:
    """Name the nodes that got no work, and why."""
    for node, why in (summary.excluded_nodes if summary else {}).items():
        say(f"WARNING: the Ray node {node} was excluded: {why}")


def through_prefect(wanted: bool | None) -> bool:
    """Whether a job runs as a Prefect flow. wanted: what --prefect and --no-prefect say."""
    from infra import orchestrator

    return wanted if wanted is not None else orchestrator.has_server()
