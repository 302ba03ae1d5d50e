"""How a plan names contents, and which of them a destination has used already.

Sources give the own names of contents (`table.identities`). A plan keeps only identities.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipelines.plan.sources import COLUMNS
from pipelines.table.identities import Identities, with_owner
from pipelines.table.text_set import Mask, TextSet

_BEFORE = "before"
_CONTENT = "content"


@dataclass(frozen=True)
class Known:
    """Contents that became templates. identities: how these were named.

    used: the identities, each with its owner where `by_owner`. unkeyed: whether some are named in
    the clear, as in older tables.
    """

    identities: Identities
    used: TextSet = field(default_factory=TextSet)
    unkeyed: bool = False

    def has(self, batch: pa.Table, *, by_owner: bool = False) -> Mask:
        """Which rows of a source are of these contents, (k,) bool."""
        named = [self.identities.column(batch[_CONTENT])]
        if self.unkeyed:
            named += [batch[_CONTENT], batch[_BEFORE]]
            # Rows made from older rows have names under the older key, keyed by the table again.
            named.append(self.identities.column(batch[_BEFORE]))
        found = np.zeros(len(batch), bool)
        for column in named:
            asked = with_owner(_array(batch["subject_id"]), _array(column)) if by_owner else column
            found |= self.used.has(asked)
        return found


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def named(batch: pa.Table, identities: Identities) -> pa.Table:
    """A batch of a source, with identities instead of the own names of its contents."""
    place = batch.schema.get_field_index(_CONTENT)
    column = identities.column(batch[_CONTENT])
    batch = batch.set_column(place, COLUMNS.field(_CONTENT), column)
    return batch.drop_columns([_BEFORE])
