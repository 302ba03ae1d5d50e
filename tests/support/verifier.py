"""A process that verifies without a pause and writes down each answer.

It is started as `python -m support.verifier`. Arguments: destination, keyset file, a Parquet of
probes (`subject_id`, `embedding`, `kind`), where the answers go (a JSON line each), and a file
whose coming ends it.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipelines.verification.verifier import Verifier


def main(dest: str, keys: str, probes: str, out: str, end: str) -> None:
    verifier = Verifier(dest, keys)
    rows = pq.read_table(probes).to_pylist()
    rng = random.Random(1)
    with Path(out).open("w") as answers:
        while not Path(end).exists():
            probe = rng.choice(rows)
            begun = time.monotonic()
            answer = {name: probe[name] for name in ("subject_id", "kind")}
            try:
                verifier.refresh()
                vector = np.asarray(probe["embedding"], np.float32)[None]
                (accepted,) = verifier.verify_embeddings(probe["subject_id"], vector)
                generation = verifier.generation(probe["subject_id"])
                answer |= {"generation": generation, "accepted": accepted}
            except Exception as error:  # noqa: BLE001
                answer["error"] = f"{type(error).__name__}: {error}"
            answer["seconds"] = time.monotonic() - begun
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
