"""Kinds of nodes, and what they and a store cost, from a small file of the user's."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from typing import Any, Final

from ironmask.errors import SourceError
from pipelines.ports import Store

_EXAMPLE: Final = "see Capacity in the documents for an example"


@dataclass(frozen=True)
class Node:
    """A kind of node. hour: its price; None: not known. speed: of its processors, against those
    that the figures were measured on.
    """

    name: str
    cpus: int
    gpus: int = 0
    hour: float | None = None
    speed: float = 1.0


@dataclass(frozen=True)
class Prices:
    """What things cost, in one currency. gib_month: a GiB for a month. reads, writes: a thousand
    requests of either kind; listing counts as writing.
    """

    nodes: tuple[Node, ...]
    currency: str = ""
    gib_month: float | None = None
    reads: float | None = None
    writes: float | None = None


def read(place: str, store: Store) -> Prices:
    """The prices of a TOML or JSON file. Raises `SourceError` for one that is none."""
    try:
        text = store.read(place, 1 << 20).decode("utf-8")
        found = json.loads(text) if place.endswith(".json") else tomllib.loads(text)
    except (FileNotFoundError, IsADirectoryError):
        raise SourceError(f"{place}: there is no such file of prices") from None
    except ValueError as error:
        raise SourceError(f"{place} is neither TOML nor JSON: {error}") from None
    try:
        return _prices(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise SourceError(f"{place} holds no prices ({why}): {_EXAMPLE}") from None


def _prices(found: dict[str, Any]) -> Prices:
    _refuse_unknown(found, {"currency", "nodes", "store"})
    nodes = tuple(_node(name, given) for name, given in found["nodes"].items())
    if not nodes:
        raise ValueError("it names no kind of node")
    store = found.get("store", {})
    _refuse_unknown(store, {"gib_month", "reads", "writes"})
    given = {name: _price(value, name) for name, value in store.items()}
    return Prices(nodes, str(found.get("currency", "")), **given)


def _node(name: str, given: dict[str, Any]) -> Node:
    _refuse_unknown(given, {"cpus", "gpus", "hour", "speed"})
    cpus, gpus = given["cpus"], given.get("gpus", 0)
    for what, value, least in (("cpus", cpus, 1), ("gpus", gpus, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"nodes.{name}: {what} is a whole number, {least} or more")
    hour = _price(given["hour"], "hour") if "hour" in given else None
    speed = _price(given.get("speed", 1.0), "speed")
    if not speed:
        raise ValueError(f"nodes.{name}: speed is more than 0")
    return Node(name, cpus, gpus, hour, speed)


def _price(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is no number")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is a number from 0")
    return float(value)


def _refuse_unknown(given: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(given) - known):
        raise ValueError(f"nothing is known of {', '.join(unknown)}")
