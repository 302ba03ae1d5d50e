"""Re-protection against enrolment, and rows made from rows against what they must do at least."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np

from infra.store.local_files import LocalFiles
from ironmask import preset, protect, shuffle

from .kernel import N, some_keys
from .stored import embeddings
from .table import Row, paired, timed

ROUNDS = 3
SUBJECTS = 1536
_ROWS = 64


def by_hand(folder: str) -> Callable[[], None]:
    """Open, shuffle and seal 64 helpers, hash them and write them: no table, no pipeline."""
    keys = some_keys(Path(folder))
    row = protect(np.random.default_rng().standard_normal(N), preset("balanced"), bytes(32))
    sealed = keys.encrypt(row.helper, b"bound")
    store, path = LocalFiles(), str(Path(folder) / "rows")

    def work() -> None:
        parts = []
        for _ in range(_ROWS):
            plain = keys.decrypt(sealed, b"bound")
            moved = shuffle.applied(plain, row.params, row.encoding, bytes(32))
            parts += [keys.encrypt(moved, b"bound"), row.digests]
        content = b"".join(parts)
        sha256(content).hexdigest()
        store.write(path, content)

    return work


def rates() -> dict[str, float]:
    """Rows a second of an enrolment and what follows it, on one core."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = embeddings(folder / "e.parquet", SUBJECTS)
        request = {
            "source": str(source),
            "dest": str(folder / "table"),
            "keys": str(folder / "table.keys.json"),
            "shard_size": 128,
            "executor": "local",
        }
        done = subprocess.run(
            [sys.executable, "-m", "bench.renew_once", json.dumps(request)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        hand = by_hand(name)
        hand()
        found["by hand"] = _ROWS / (timed(hand, 8) / 1e3)
    return found


def renewal() -> list[Row]:
    seen = [rates() for _ in range(ROUNDS)]

    def row(figure: str, against: str, reference: str) -> Row:
        pairs = [(found[figure], found[reference]) for found in seen]
        return paired(f"rows, {figure}", against, pairs, "a second")

    least = "open, shuffle, seal, hash and write by hand"
    return [
        row("reprotect", "rows, enroll", "enroll"),
        row("rekey", least, "by hand"),
        row("rotate-mac", least, "by hand"),
    ]
