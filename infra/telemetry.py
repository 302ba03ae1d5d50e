"""Logs: one line for each event on standard error, without secrets.

Templates, embeddings and keys are bytes and arrays here. So bytes and arrays are never printed,
whatever their field is called. Fields with a secret name are not printed either.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, Literal

import structlog

from pipelines.spec.addresses import scrubbed

LogFormat = Literal["text", "json"]

_OURS: Final = ("ironmask", "pipelines", "infra")
# Prefect has settings of its own for its loggers.
_OWN_LEVEL: Final = (*_OURS, "prefect")
_BESIDE: Final = ("event", "exception", "level", "logger", "timestamp")
_TEXT_CHARS: Final = 2_000
_ITEMS: Final = 32
_SECRET_NAME: Final = re.compile(
    r"(.*_)?(keys?|keysets?|secrets?|passwords?|passphrase|tokens?|credentials?|authorization)"
)
# Counts of these things are not secret; the things are.
_PRIVATE_NAME: Final = re.compile(
    r"(.*_)?(embedding|template|codeword|helper|digest|crop|probe|row_?key)s?"
)
# How bytes, arrays and long runs of numbers look after they were put into a text.
_PRINTED: Final = re.compile(
    r"""\b(?:b|bytearray\(b)'(?:[^'\\]|\\.)*'\)?|\b(?:b|bytearray\(b)"(?:[^"\\]|\\.)*"\)?"""
    r"""|\barray\([^()]*\)|\[[-+\d.,eEnaif\s\[\]]{40,}""",
    re.DOTALL,
)


def configure_logging(level: str = "warning", fmt: LogFormat = "text") -> None:
    """Send our events from `level` up, and warnings of other libraries, to standard error.

    fmt: `text` for key=value, `json` for one object on each line.
    """
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    _install(_formatter(_renderer(fmt)), level)


@contextmanager
def also_to(handler: logging.Handler) -> Iterator[None]:
    """Give our events of a run, from `info` up, to another handler as well, in one line each."""
    handler.setFormatter(_formatter(_told))
    handler.setLevel(logging.INFO)
    ours = [logging.getLogger(name) for name in _OURS]
    levels = [logger.level for logger in ours]
    for logger in ours:
        logger.addHandler(handler)
        # What standard error gets is for its own handler to choose.
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    try:
        yield
    finally:
        for logger, level in zip(ours, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def _shared() -> list[Any]:
    """What every event passes through, whoever gets it."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        # Format as text before redaction: other renderers print local variables of every frame.
        structlog.processors.format_exc_info,
        redact,
    ]


def _formatter(renderer: Any) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_shared()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _told(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """An event for a reader who has its time and level beside it, and gets no traces."""
    facts = {k: v for k, v in event.items() if k not in _BESIDE}
    first = next(iter(str(event["event"]).splitlines()), "")
    return ", ".join([first, *(f"{name} {value}" for name, value in facts.items() if value != "")])


def _renderer(fmt: LogFormat) -> Any:
    if fmt == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=True)
    return structlog.processors.KeyValueRenderer(
        key_order=["timestamp", "level", "event"], drop_missing=True
    )


def _install(formatter: logging.Formatter, level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(_OursFrom(level))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    # Otherwise a library that sets its own level would also log below warnings.
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.split(".")[0] not in _OWN_LEVEL and isinstance(logger, logging.Logger):
            logger.setLevel(max(logger.level, logging.WARNING))


class _OursFrom(logging.Filter):
    """Lets our events through from a level up, and those of others as they come."""

    def __init__(self, level: str) -> None:
        super().__init__()
        self._least = logging.getLevelNamesMapping()[level.upper()]

    def filter(self, record: logging.LogRecord) -> bool:
        is_ours = record.name.split(".")[0] in _OURS
        return record.levelno >= self._least or not is_ours


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: replaces secret values by their type and size."""
    event.pop("_ray_timestamp_ns", None)  # Ray adds it to every record
    for name, value in event.items():
        # structlog keeps its own fields under such names between two processors.
        if not name.startswith("_"):
            event[name] = _field(name, value)
    return event


def _field(name: str, value: Any) -> Any:
    if _SECRET_NAME.fullmatch(name.lower()) and value is not None:
        return _blank(value)
    if _PRIVATE_NAME.fullmatch(name.lower()) and not isinstance(value, int | None):
        return _blank(value)
    return _clean(value)


def _clean(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value)
    if _is_data(value):
        return _blank(value)
    if isinstance(value, Mapping):
        return {str(_clean(k)): _field(str(k), v) for k, v in list(value.items())[:_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value] if len(value) <= _ITEMS else _blank(value)
    if isinstance(value, BaseException):
        return _text(f"{type(value).__name__}: {value}")
    return _text(repr(value))


def _is_data(value: Any) -> bool:
    """Whether it is bytes, or gives its content as an array or a buffer."""
    if isinstance(value, bytes | bytearray | memoryview):
        return True
    kind = type(value)
    names = ("__array_interface__", "__arrow_c_array__", "__arrow_c_stream__", "__dlpack__")
    return any(hasattr(kind, name) for name in names)


def _blank(value: Any) -> str:
    size = getattr(value, "shape", None) or (len(value) if hasattr(value, "__len__") else 1)
    return f"<redacted {type(value).__name__} {size}>"


def _text(value: str) -> str:
    shown = scrubbed(_PRINTED.sub("<redacted>", value[: 4 * _TEXT_CHARS]))
    if len(shown) <= _TEXT_CHARS:
        return shown
    return f"{shown[:_TEXT_CHARS]}… <cut, {len(value)} characters>"
