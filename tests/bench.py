"""`make bench`: what protection costs, as ratios measured side by side in one run.

Every ratio is the median over rounds in which both sides were timed one after the other, so that
a noisy machine disturbs both. Written to `bench-out/bench.md` and `bench-out/bench.parquet`.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import ortho_group
from threadpoolctl import threadpool_limits

from infra.keys import KeyFile
from ironmask import helper, preset, protect, rotation, secure_generator, verify

N = 512
ROUNDS = 15
OUT = Path("bench-out")


@dataclass(frozen=True)
class Row:
    """One comparison: how many times the reference's time the subject takes."""

    what: str
    reference: str
    ratio: float
    low: float
    high: float
    subject_ms: float
    reference_ms: float


def timed(work: Callable[[], object], repeat: int) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    return (time.perf_counter() - start) / repeat


def compare(
    what: str, subject: Callable[[], object], reference: str, other: Callable[[], object]
) -> Row:
    subject(), other()
    pairs = [(timed(subject, 3), timed(other, 3)) for _ in range(ROUNDS)]
    ratios = sorted(a / b for a, b in pairs)
    return Row(
        what,
        reference,
        statistics.median(ratios),
        ratios[ROUNDS // 10],
        ratios[-1 - ROUNDS // 10],
        1e3 * statistics.median(a for a, _ in pairs),
        1e3 * statistics.median(b for _, b in pairs),
    )


def gemm_limit() -> Callable[[], object]:
    """4/3 n^3 flops, two thirds of one product's, and n^2 / 2 normals from the secure generator."""
    rng = secure_generator()
    a, b = (rng.standard_normal((N, N), dtype=np.float32) for _ in range(2))
    part = np.ascontiguousarray(b[:, : 2 * N // 3])

    def work() -> object:
        rng.standard_normal(N * N // 2, dtype=np.float32)
        return a @ part

    return work


def qr_with_sign_fix() -> object:
    q, r = np.linalg.qr(np.random.standard_normal((N, N)))
    return q * np.sign(r.diagonal())


def measure() -> list[Row]:
    params, rng = preset("balanced"), secure_generator()
    with tempfile.TemporaryDirectory() as folder:
        file = KeyFile.create(Path(folder) / "keys.json", "bench")
        file.add_generation(1)
        keys = file.generation(1)
    key = keys.row_key("bench")
    template = rng.standard_normal(N)
    row = protect(template, params, key, rng=rng)

    def whole() -> bytes:
        made = protect(template, params, key, rng=rng)
        return keys.seal(made.helper, b"bound")

    def haar() -> object:
        return rotation.haar(rng, N)

    p = helper.decode([row.helper], row.encoding, N)
    limit, scipys = gemm_limit(), lambda: ortho_group.rvs(N)
    return [
        compare("Haar rotation", haar, "scipy ortho_group.rvs", scipys),
        compare("Haar rotation", haar, "numpy QR with sign fix", qr_with_sign_fix),
        compare("Haar rotation", haar, "GEMM limit", limit),
        compare("protect, int8, sealed", whole, "scipy ortho_group.rvs", scipys),
        compare("protect, int8, sealed", whole, "GEMM limit", limit),
        compare("verify", lambda: verify(row, template, key), "one protect", lambda: whole()),
        compare("encode int8", lambda: helper.encode(p, "int8"), "copy of P", lambda: p.tobytes()),
    ]


def markdown(rows: list[Row]) -> str:
    lines = [
        f"One thread, n = {N}, medians of {ROUNDS} paired rounds (10 % and 90 % quantiles).",
        f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}.",
        "",
        "| what | against | ratio | range | ms | ms of the other |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.what} | {r.reference} | {r.ratio:.3f} | {r.low:.3f} to {r.high:.3f} "
        f"| {r.subject_ms:.2f} | {r.reference_ms:.2f} |"
        for r in rows
    ]
    lines += ["", "| encoding | bytes a helper |", "| --- | --- |"]
    lines += [f"| {e.name} | {e.nbytes(N):,} |" for e in helper.ENCODINGS.values()]
    return "\n".join(lines) + "\n"


def main() -> None:
    with threadpool_limits(1):
        rows = measure()
    OUT.mkdir(exist_ok=True)
    text = markdown(rows)
    (OUT / "bench.md").write_text(text)
    pq.write_table(pa.Table.from_pylist([vars(row) for row in rows]), OUT / "bench.parquet")
    print(text)
    print(f"written to {OUT}/bench.md and {OUT}/bench.parquet")


if __name__ == "__main__":
    main()
