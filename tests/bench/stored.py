"""From stored embeddings: how close to the kernel, how it scales, and what memory it takes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from hashlib import sha256
from mmap import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support.nodes import cluster

from infra.store.local_files import LocalFiles
from ironmask import Params, Protector, preset, secure_generator
from ironmask.template import row_bytes

from .enrolments import enrol
from .kernel import BEFORE, N, some_keys
from .machine import together
from .table import Row, paired

ROUNDS = 3
SUBJECTS = 2560
SECONDS = 3.0
DEFAULT = preset("balanced", N)
_MIB = 1 << 20


def kernel(params: Params = DEFAULT) -> Callable[[], int]:
    """Protect and encrypt one template after another."""
    with tempfile.TemporaryDirectory() as folder:
        keys = some_keys(Path(folder))
    protector = Protector(params)
    template, key = secure_generator().standard_normal(N), keys.row_key("bench")

    def work() -> int:
        keys.encrypt(protector.protect(template, key).helper, b"bound")
        return 1

    return work


def products() -> Callable[[], int]:
    a = np.random.standard_normal((N, N)).astype(np.float32)
    out = np.empty_like(a)

    def work() -> int:
        np.matmul(a, a, out=out)
        return 1

    return work


def writing(folder: str) -> Callable[[], int]:
    """Write what 64 rows take with NumPy, and wait for the disk."""
    size = 64 * (row_bytes(DEFAULT, "int8") + 28)
    block = np.random.default_rng().integers(0, 256, size, dtype=np.uint8)
    path = Path(folder) / f"{os.getpid()}.bin"

    def work() -> int:
        with path.open("wb") as file:
            block.tofile(file)
            file.flush()
            os.fsync(file.fileno())
        return 64

    return work


def by_hand(folder: str) -> Callable[[], int]:
    """Protect and seal 64 templates, hash what came out and write it: no table, no pipeline."""
    keys, protector = some_keys(Path(tempfile.mkdtemp(dir=folder))), Protector(DEFAULT)
    template = secure_generator().standard_normal(N)
    store, path = LocalFiles(), str(Path(folder) / f"{os.getpid()}.rows")
    memory = memoryview(mmap(-1, 64 * (1 << 20)))

    def work() -> int:
        end = 0
        for number in range(64):
            key = keys.row_key(str(number))
            protected = protector.protect(template, key)
            for part in (keys.encrypt(protected.helper, b"bound"), protected.digests):
                memory[end : end + len(part)] = part
                end += len(part)
        sha256(memory[:end]).hexdigest()
        store.write(path, memory[:end])
        return 64

    return work


def embeddings(path: Path, subjects: int) -> Path:
    """One synthetic embedding each."""
    rng = np.random.default_rng(1)
    schema = pa.schema([("subject_id", pa.string()), ("embedding", pa.list_(pa.float32()))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, subjects, 1000):
            count = min(1000, subjects - start)
            vectors = rng.standard_normal((count, N)).astype(np.float32)
            names = [f"s{start + number:07d}" for number in range(count)]
            writer.write_table(pa.table([names, list(vectors)], schema=schema))
    return path


def throughput() -> list[Row]:
    cores = os.cpu_count() or 1
    seen: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        source = embeddings(Path(name) / "e.parquet", SUBJECTS)
        for _ in range(ROUNDS):
            both = enrol(source, workers=cores, shard_size=128)
            one = enrol(source, workers=1, shard_size=128)
            seen.append(
                {
                    "all": both.rate(2, 2 * cores),
                    "one": one.rate(2, 2),
                    "kernel": together(kernel, cores, SECONDS),
                    "before": together(kernel, cores, SECONDS, BEFORE),
                    "by hand": together(by_hand, cores, SECONDS, name),
                    "numpy": together(writing, cores, SECONDS, name),
                    "gemm": together(products, cores, SECONDS),
                    "gemm one": together(products, 1, SECONDS),
                }
            )

    def row(what: str, figure: str, against: str, reference: str, **goal: float) -> Row:
        pairs = [(s[figure], s[reference]) for s in seen]
        return paired(what, against, pairs, "a second", **goal)

    workers = f"{cores} workers"
    return [
        row(f"rows, {workers}", "all", "protect and encrypt alone", "kernel", at_least=0.95),
        row(
            f"protect and encrypt alone, {workers}",
            "kernel",
            "scheme version 1",
            "before",
            at_least=1.6,
        ),
        row(f"rows, {workers}", "all", "the same, hashed and written by hand", "by hand"),
        row(f"rows, {workers}", "all", "NumPy writing as many bytes", "numpy"),
        row(f"rows, {workers}", "all", "rows, 1 worker", "one", at_least=0.95 * cores),
        row(f"products, {cores} processes", "gemm", "products, 1 process", "gemm one"),
    ]


def nodes() -> list[Row]:
    """As many nodes of one worker each as one node has workers."""
    cores = os.cpu_count() or 1
    pairs = []
    with tempfile.TemporaryDirectory() as name:
        source = embeddings(Path(name) / "e.parquet", SUBJECTS)
        with cluster(Path(name) / "cluster", nodes=cores) as several:
            for _ in range(ROUNDS - 1):
                apart = enrol(source, on=several, shard_size=128).rate(2, 2 * cores)
                here = enrol(source, workers=cores, shard_size=128).rate(2, 2 * cores)
                pairs.append((apart, here))
    what = f"rows, {cores} nodes of one worker"
    return [paired(what, f"one node of {cores} workers", pairs, "a second")]


def growth(sizes: tuple[int, ...] = (1024, 4096, 16384)) -> list[Row]:
    """Peak memory over the input's size, and whether the last inputs take longer than the first."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        runs = {
            size: enrol(embeddings(Path(name) / f"{size}.parquet", size), watch=True, workers=cores)
            for size in sizes
        }
    first, middle, last = (runs[size] for size in sizes)
    early, late = last.tenths()
    goal = {"at_most": 1.1}
    return [
        _peaks(sizes[0], first.peak, sizes[1], middle.peak),
        _peaks(sizes[1], middle.peak, sizes[2], last.peak, **goal),
        paired(
            f"time a row, last tenth of {sizes[2]:,}",
            "first tenth",
            [(1e3 * late, 1e3 * early)],
            "ms",
            **goal,
        ),
    ]


def _peaks(fewer: int, low: int, more: int, high: int, **goal: float) -> Row:
    pair = high / _MIB, low / _MIB
    return paired(f"peak memory, {more:,} subjects", f"{fewer:,} subjects", [pair], "MiB", **goal)
