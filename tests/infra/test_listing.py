"""Listings of very many keys: a page at a time, in little memory."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from support.proxy import proxy

from infra.settings import StorageSettings
from infra.store.objects import FsspecStore

PAGE = 1000


def fill(store: FsspecStore, base: str, count: int) -> None:
    """Put empty objects, many at a time."""
    client = store._remote._fs

    async def put() -> None:
        slots = asyncio.Semaphore(64)

        async def one(number: int) -> None:
            async with slots:
                bucket, _, key = base.removeprefix("s3://").partition("/")
                await client._call_s3("put_object", Bucket=bucket, Key=f"{key}/{number:06d}")

        await asyncio.gather(*map(one, range(count)))

    asyncio.run_coroutine_threadsafe(put(), client.loop).result()


@pytest.mark.parametrize("count", [2_100, 100_000])
@pytest.mark.slow
def test_a_listing_streams(s3, bucket, monkeypatch, count):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    base = f"{bucket}/many"
    fill(FsspecStore(StorageSettings()), base, count)
    with proxy(s3.endpoint) as counting:
        monkeypatch.setenv("IRONMASK_S3_ENDPOINT", counting.endpoint)
        store = FsspecStore(StorageSettings())
        assert store.exists(base)
        before = counting.met["requests"]
        entries = store.entries(base)
        first = next(entries)
        assert first.uri == f"{base}/000000"
        # A page, and a look at whether tags tell contents.
        assert counting.met["requests"] - before <= 2
        tracemalloc.start()
        found = sum(1 for _ in entries)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found == count - 1
        assert counting.met["requests"] - before <= count / PAGE + 4
    assert peak < 16 << 20
