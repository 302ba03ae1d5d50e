"""Some inputs of a plan that need work, each as likely as any other."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass
class Sample:
    """Keeps the addresses of at most so many inputs while the tables of a plan go by.

    Inputs whose address is stored keyed are left out.
    """

    most: int
    _kept: list[tuple[int, str]] = field(default_factory=list)

    def look(self, table: pa.Table) -> None:
        """Take from a table of `pipelines.plan.arrange.SCHEMA`."""
        open_ = pc.and_(pc.is_null(table["outcome"]), pc.is_null(table["address"]))
        addresses = table.filter(open_)["uri"]
        drawn = np.frombuffer(secrets.token_bytes(8 * len(addresses)), dtype=np.uint64)
        first = np.argsort(drawn)[: self.most]
        found = addresses.take(pa.array(first)).to_pylist()
        pairs = zip(drawn[first].tolist(), found, strict=True)
        self._kept = sorted([*self._kept, *pairs])[: self.most]

    @property
    def addresses(self) -> tuple[str, ...]:
        """What was taken, in no order."""
        return tuple(address for _, address in self._kept)
