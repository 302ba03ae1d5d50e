"""Templates of a destination as its owner can open them, with the codewords that nobody keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ironmask import Params, codeword, digest, helper, tiles
from ironmask.arrays import F32, F64, I32
from ironmask.template import ProtectedTemplate
from pipelines.ports import GenerationKeys
from pipelines.table.row_cipher import open_row
from support.table import Row, generation_keys, table_id_of, templates


@dataclass(frozen=True)
class Opened:
    """One row as its owner sees it. matrix: P, (N, n). code: the signed support, (alpha,)."""

    subject: str
    params: Params
    matrix: F32
    code: I32

    @property
    def template(self) -> F64:
        """The enrolled unit template, P' c."""
        found: F64 = self.matrix.T @ codeword.dense(self.code, len(self.matrix))[0]
        return found

    def tolerances(self, probes: F32, largest: int) -> Any:
        """Tolerances up to the largest that accept each unit probe, (k, n), as bits: (k,)."""
        params = replace(self.params, tolerance=largest)
        return tiles.judge(self.matrix, self.code, probes, params)[1]


def open_template(table_id: str, row: Row, keys: GenerationKeys, near: Any) -> Opened:
    """Open a row with its keys. near: a vector close enough to the template to give its codeword.

    That it is the codeword itself is proven by its digests, which must be the row's.
    """
    protected: ProtectedTemplate = open_row(table_id, row, keys)
    params = protected.params
    matrix = helper.decode([protected.helper], params, protected.encoding)[0]
    code = codeword.decode(matrix @ np.asarray(near, np.float32), params.alpha)[0]
    tags = digest.digests(code, params, keys.row_key(row["template_id"]))
    assert tags == row["digests"], f"no codeword found for {row['subject_id']}"
    return Opened(row["subject_id"], params, matrix, code)


def open_all(dest: Path, near: Mapping[str, Any]) -> dict[str, Opened]:
    """Every template of a destination, opened."""
    table_id, keys = table_id_of(dest), generation_keys(dest)
    return {
        subject: open_template(table_id, row, keys, near[subject])
        for subject, row in templates(dest).items()
    }
