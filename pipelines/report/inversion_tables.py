"""The numbers of template inversion, for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from ironmask.attacks.inversion import Hits
from pipelines.inversion.results import InversionResults, Line

_FAILURES: Final = pa.schema(
    [("photo", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)


def inversion_tables(found: InversionResults) -> dict[str, pa.Table]:
    """Tables by name of a Parquet file. No face, template or name of a tested person is in them."""
    return {
        "inversion": pa.Table.from_pylist([row for line in found.lines for row in _rows(line)]),
        "curve": pa.Table.from_pylist(
            [_row(line, hits) for line in found.lines for hits in line.curve]
        ),
        "likeness": pa.Table.from_pylist(
            [
                {"input": str(one.input), "asked": one.asked, "found": one.found,
                 "cosine": one.cosine}
                for one in found.likeness
            ]
        ),
        "failures": failures_table(found.failures),
    }  # fmt: skip


def failures_table(failures: Sequence[tuple[str, str, str]]) -> pa.Table:
    """Photos that could not be used, one a row."""
    rows = [dict(zip(_FAILURES.names, one, strict=True)) for one in failures]
    return pa.Table.from_pylist(rows, _FAILURES)


def _rows(line: Line) -> Iterator[dict[str, Any]]:
    for hits in line.hits:
        yield {**_row(line, hits), "mean_cosine": line.cosine}


def _row(line: Line, hits: Hits) -> dict[str, Any]:
    at = hits.threshold
    return {
        "input": str(line.input),
        "inverter": line.inverter,
        "recogniser": line.model,
        "attacked": line.attacked,
        "type": line.type,
        "far": at.far,
        "threshold": at.cosine,
        "strangers_accepted": at.accepted,
        "strangers_compared": at.comparisons,
        "supported": at.supported,
        "hits": hits.hits,
        "trials": hits.trials,
        "people": hits.people,
        "tar": hits.share,
        "low": hits.interval.low,
        "high": hits.interval.high,
    }
