"""Plain functions as Ray's tasks and actors, which add where something was done or failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import ray
from ray.exceptions import RayActorError, RayTaskError

from ironmask.errors import IronmaskError, KeyStoreError, ModelError, StorageError
from pipelines.run.ray_nodes import MODELS, WORK, NodeError
from pipelines.run.work import Answer, Common, Host

# Ray's own retries, of a task whose worker or node is gone.
_RETRIES: Final = 1
# Questions that a host works on at the same time: one is decrypted while the model has another.
_THREADS: Final = 8

Done = tuple[str, Any]
"""The id of the node that did a unit, and the result."""


def task(function: Callable[..., Any], unit: Callable[..., Any], needs: Mapping[str, Any]) -> Any:
    """A function of this module as Ray's task, named after the unit of work that it does."""
    return _remote(function).options(name=unit.__name__, **needs)


@cache
def _remote(function: Callable[..., Any]) -> Any:
    """Made once: the head keeps each one that is made, and one waits for it to take it."""
    return ray.remote(num_cpus=1, max_retries=_RETRIES)(function)


def whole(function: Callable[..., Any], common: Common, unit: int) -> Done:
    """A unit of work, in a worker."""
    with _lacking(WORK):
        return here(), function(*common, unit)


def hosted(function: Callable[..., Any], common: Common, host: Any, unit: int) -> Done:
    """A unit of work whose models an actor holds, in a worker."""

    def ask(*question: Any) -> Answer:
        reference = host.answer.remote(*question)
        return lambda: _answered(reference)

    with _lacking(WORK):
        return here(), function(*common, ask, unit)


class ModelHost:
    """Holds models in an actor."""

    def __init__(self, make: Callable[..., Host], common: Common) -> None:
        self._host = make(*common)

    def load(self) -> str:
        """Load the models; return the node's id."""
        with _lacking(MODELS):
            self._host.load()
        return here()

    def answer(self, *question: Any) -> Any:
        with _lacking(MODELS):
            return self._host.answer(*question)


def host(make: Callable[..., Host], common: Common, options: Mapping[str, Any]) -> Any:
    """An actor with models. It takes turns with the tasks on the CPUs."""
    # Whoever needs another one makes it where there is room by then.
    kind: Any = ray.remote(num_cpus=0, max_restarts=0)(ModelHost)
    return kind.options(max_concurrency=_THREADS, **options).remote(make, common)


def here() -> str:
    """The id of this process's node."""
    found: str = ray.get_runtime_context().get_node_id()
    return found


@contextmanager
def _lacking(role: str) -> Iterator[None]:
    """Say whose fault it is where keys, models or the store are lacking."""
    try:
        yield
    except (KeyStoreError, ModelError, StorageError) as error:
        raise NodeError(role, here(), error) from None


def _answered(reference: Any) -> Any:
    """An actor's answer. Raises its own error, `NodeError`, or `RayActorError` once it is gone."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, IronmaskError | NodeError | RayActorError):
            raise error.cause from None
        raise
