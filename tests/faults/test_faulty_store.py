"""A small enrolment through a store in trouble, and what a store refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from faults import refusals
from faults.faulty_store import Place, enrol, put_source, rows, soundness
from support.proxy import MANY, NONE, STALLS
from support.proxy import proxy as run_proxy

from infra.store.objects import FsspecStore
from ironmask.errors import StorageError

SMALL = ("--alpha=16", "--shard-size=16")


@pytest.fixture
def where(s3, bucket, tmp_path) -> Place:
    return Place(s3, bucket, tmp_path)


@pytest.mark.slow
def test_a_store_in_trouble(where):
    put_source(where, 40, 512)
    quiet = enrol(where, "quiet", NONE, 0, *SMALL)
    assert quiet.answer.code == 0, quiet.answer.err
    faulty = enrol(where, "faulty", replace(MANY, cut=0.1), 3, *SMALL)
    lines = soundness(where, faulty, rows(where, quiet.dest), "faulty")
    assert [line for line in lines if not line.holds] == []
    assert min(faulty.met[name] for name in ("503", "500", "answers of commits lost", "cut")) > 0


@pytest.mark.slow
def test_silence(where, monkeypatch):
    """A server that takes a request and says nothing is asked again."""
    monkeypatch.setattr("infra.store.s3_client._SILENCE_S", 0.5)
    settings = where.settings()
    FsspecStore(settings).write(f"{where.bucket}/a", b"content")
    with run_proxy(where.server.endpoint, replace(STALLS, stalled=0.5), 1) as found:
        store = FsspecStore(settings.model_copy(update={"endpoint": found.endpoint}))
        for _ in range(10):
            assert store.read(f"{where.bucket}/a") == b"content"
        assert found.met["stalled"] > 0


@pytest.mark.slow
def test_a_store_that_never_recovers(where):
    with run_proxy(where.server.endpoint, replace(NONE, busy=1.0)) as found:
        store = FsspecStore(where.settings().model_copy(update={"endpoint": found.endpoint}))
        with pytest.raises(StorageError, match=r"no usable answer in 8 attempts \(SlowDown\)"):
            store.read(f"{where.bucket}/a")
        assert found.met["503"] == 8


@pytest.mark.parametrize(("status", "code", "said"), [row[1:] for row in refusals._DENIALS])
def test_a_refusal_is_not_repeated(where, status, code, said):
    with run_proxy(where.server.endpoint, replace(NONE, refuse=(status, code))) as found:
        store = FsspecStore(where.settings().model_copy(update={"endpoint": found.endpoint}))
        with pytest.raises(StorageError, match=said[0]):
            store.read(f"{where.bucket}/a")
        assert found.met["refused"] == 1
