"""Measure what `pipelines/preflight` ships, and write it there.

    PYTHONPATH=tests .venv/bin/python tests/pipelines/preflight/make_acceptance.py

`acceptance.csv`: how often each setting of the catalogue accepts a probe, by angle; see
`ironmask.acceptance`. `recogniser.csv`: how well w600k_mbf tells people of LFW apart, with some
numbers of photos enrolled, wrong labels and people under two names left out. It needs the stored
embeddings of LFW (IRONMASK_SHARED), and leaves the file alone without them.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from support import lfw

from ironmask.acceptance import DRAWS, measured
from ironmask.choosing import ALPHAS, FLOOR_BITS, WIDENINGS, largest_tolerance
from ironmask.params import Params
from pipelines.preflight import catalogue, curves

N = 512
SEED = 20210401
PHOTOS = (1, 2, 3, 5)
ROOM = Path(curves.__file__).parent
ABOUT_ACCEPTANCE = (
    f"Shares of {DRAWS:,} probes that are accepted at the angles of ironmask.acceptance.\n"
    "code width, alpha, tolerance, shares"
)
ABOUT_RECOGNISER = (
    f"{curves.SHIPPED_MODEL} on LFW: {{impostor:,}} impostor comparisons with 1 photo"
)


def acceptance() -> str:
    rng, rows = np.random.default_rng(SEED), []
    for over, under in WIDENINGS:
        for alpha in ALPHAS:
            width = N * over // under
            some = measured(Params(N, alpha, largest_tolerance(alpha), width), rng)
            for tolerance, found in enumerate(some):
                if Params(N, alpha, tolerance, width).bits >= FLOOR_BITS:
                    shares = (f"{share:.4g}" for share in found.shares)
                    rows.append([width, alpha, tolerance, *shares])
    return written(ABOUT_ACCEPTANCE, rows)


def recogniser() -> str:
    photos, rows, about = lfw.photos(), [], ""
    for count in PHOTOS:
        curve = curves.compared(photos, count)
        about = about or ABOUT_RECOGNISER.format(impostor=curve.impostor)
        for row in curves.rows(curve):
            rows.append({"photos": count, **{name: f"{value:.4g}" for name, value in row.items()}})
            rows[-1] |= {"genuine": curve.genuine, "impostor": curve.impostor}
    return written(about, [list(rows[0]), *(list(row.values()) for row in rows)])


def written(about: str, rows: Iterable[list[object]]) -> str:
    sink = io.StringIO()
    sink.writelines(f"# {line}\n" for line in about.splitlines())
    csv.writer(sink, lineterminator="\n").writerows(rows)
    return sink.getvalue()


if __name__ == "__main__":
    (ROOM / catalogue.SHIPPED).write_text(acceptance(), encoding="utf-8")
    if lfw.EMBEDDINGS.is_file():
        (ROOM / curves.SHIPPED).write_text(recogniser(), encoding="utf-8")
    else:
        sys.stderr.write(f"{lfw.EMBEDDINGS} is not there: {curves.SHIPPED} stays as it is\n")
