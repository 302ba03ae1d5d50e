"""Logs: levels, formats, and that nothing secret is printed."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from infra.telemetry import also_to, configure_logging, redact

SECRET = b"sesame \x00\xff"
SPOKEN = "sesame"
AWKWARD = b"it is " + SECRET + b" isn't"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture(params=["text", "json"])
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("debug", request.param)
    return stream


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        bytearray(SECRET),
        memoryview(SECRET),
        np.frombuffer(b"sesame00", dtype="S8"),
        pa.array([SPOKEN]),
        pa.table({"a": [SPOKEN]}),
        pa.py_buffer(SECRET),
        SecretStr(SPOKEN),
        [SECRET],
        {"deep": {"er": (SECRET, [SECRET])}},
        {SECRET: 1},
        ValueError(SECRET),
        ValueError(f"bad value {SECRET!r}"),
        f"text with {SECRET!r}",
        f"text with {bytearray(SECRET)!r}",
        f"text with {AWKWARD!r}",
        {"password": SPOKEN, "aws_secret_key": SPOKEN, "Token": SPOKEN},
    ],
)
def test_no_bytes_and_no_secret_comes_out(lines: io.StringIO, value: object) -> None:
    logger = structlog.get_logger("ironmask.test")
    logger.info("event", value=value)
    logger.info("event %s", value)
    logger.info(f"event {value}")
    logging.getLogger("elsewhere").warning("event %s", value)
    shown = lines.getvalue()
    assert (shown.count("ironmask.test"), shown.count("elsewhere")) == (3, 1)
    # A text that a caller has built from a plain word cannot be told from any other.
    plain = isinstance(value, pa.Array | pa.Table | np.ndarray | dict)
    assert SPOKEN not in (shown.splitlines()[0] if plain else shown)


@pytest.mark.parametrize(
    "name",
    [
        "key",
        "keys",
        "secret",
        "password",
        "token",
        "embedding",
        "template",
        "codeword",
        "helper",
        "digests",
        "kek_keyset",
        "session_token",
        "row_key",
        "Probe",
        "credentials",
    ],
)
def test_named_fields_are_blank(lines: io.StringIO, name: str) -> None:
    structlog.get_logger("ironmask.test").info("event", **{name: SPOKEN})
    assert SPOKEN not in lines.getvalue()
    assert "<redacted str 6>" in lines.getvalue()


def test_public_names_and_counts_stay(lines: io.StringIO) -> None:
    event = {"key_id": "ab12", "template_id": "t1", "templates": 7, "shard": 3, "rate": 0.5}
    structlog.get_logger("pipelines.test").info("shard done", **event)
    shown = lines.getvalue()
    for value in ("ab12", "t1", "7", "0.5", "shard done"):
        assert value in shown
    assert "redacted" not in shown


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    value=st.recursive(
        st.binary(min_size=1).map(lambda b: b"sesame" + b),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=8,
    )
)
def test_nested_bytes_never_come_out(value: object) -> None:
    assert SPOKEN not in str(redact(None, "info", {"event": "e", "value": value}))


def test_arrays_are_named_by_shape(lines: io.StringIO) -> None:
    array = np.full((3, 512), 0.12345, dtype=np.float32)
    logger = structlog.get_logger("ironmask.test")
    logger.info("event", crop_pixels=array, numbers=array[0].tolist())
    logger.info(f"event {array} {array[0, :6]!r} {array[0].tolist()}")
    assert "<redacted ndarray (3, 512)>" in lines.getvalue()
    assert "<redacted list 512>" in lines.getvalue()
    assert "0.12345" not in lines.getvalue()


@dataclass
class Holder:
    content: bytes


def test_exceptions_show_no_locals_and_no_bytes(lines: io.StringIO) -> None:
    def fail(hidden: str) -> None:
        held = Holder(SECRET)
        raise ValueError(f"cannot use {held} of {len(hidden)}")

    logger = structlog.get_logger("ironmask.test")
    try:
        fail("open" + SPOKEN)
    except ValueError:
        logger.exception("failed")
        logging.getLogger("elsewhere").exception("failed")
    shown = lines.getvalue()
    assert shown.count("Traceback") == 2
    assert "cannot use Holder" in shown
    assert SPOKEN not in shown


def test_long_texts_are_cut(lines: io.StringIO) -> None:
    structlog.get_logger("ironmask.test").info("event", text="x" * 5_000)
    assert "x" * 2_000 in lines.getvalue()
    assert "x" * 2_001 not in lines.getvalue()
    assert "5000 characters" in lines.getvalue()


def test_others_speak_from_warnings_up(lines: io.StringIO) -> None:
    chatty = logging.getLogger("chatty.library")
    chatty.info("quiet")
    chatty.warning("heard")
    structlog.get_logger("infra.x").debug("ours")
    assert "quiet" not in lines.getvalue()
    assert "heard" in lines.getvalue()
    assert "ours" in lines.getvalue()


def test_a_library_with_its_own_level_is_quietened(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logging.getLogger("loud").setLevel(logging.DEBUG)
    configure_logging("info", "text")
    logging.getLogger("loud").debug("noise")
    structlog.get_logger("ironmask.x").debug("below our level")
    assert stream.getvalue() == ""


def test_json_is_one_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("info", "json")
    structlog.get_logger("ironmask.x").info("two\nlines", shard=3)
    event = json.loads(stream.getvalue())
    assert (event["event"], event["shard"], event["level"]) == ("two\nlines", 3, "info")
    assert event["logger"] == "ironmask.x"
    assert event["timestamp"].endswith("Z")


class Kept(logging.Handler):
    """Keeps the lines that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def test_a_second_reader_gets_our_events_and_standard_error_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, kept = io.StringIO(), Kept()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("warning", "text")
    ours = logging.getLogger("ironmask.enrol")
    with also_to(kept):
        ours.debug("too fine")
        ours.info("wave committed", extra={"run_id": "ab", "shards": 3, "node": ""})
        ours.warning("shard %d is submitted again", 4, extra={"value": SECRET})
        ours.error("a stage failed: Traceback\n  File %s", SPOKEN)
        logging.getLogger("elsewhere").warning("not ours")
    ours.info("after")
    assert kept.lines == [
        "wave committed, run_id ab, shards 3",
        "shard 4 is submitted again, value <redacted bytes 9>",
        "a stage failed: Traceback",
    ]
    shown = stream.getvalue()
    assert "wave committed" not in shown
    assert [word in shown for word in ("submitted again", "a stage failed", "not ours")] == [
        True
    ] * 3
    assert ours.getEffectiveLevel() == logging.WARNING
