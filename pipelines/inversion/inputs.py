"""What a thief may have of a person, as templates to invert."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np

from ironmask.arrays import F32, F64, unit_rows
from ironmask.attacks import Budget, recover_from_row, recover_from_width
from ironmask.attacks.inversion import by_random_codewords
from ironmask.attacks.result import Codes
from ironmask.centring import centre
from ironmask.errors import SubjectError, TemplateError
from ironmask.params import DEFAULT_PRESET, preset
from ironmask.random import secure_generator
from ironmask.spectrum import Spectrum
from ironmask.template import ProtectedTemplate, confirms, matrix, protect
from pipelines.inversion.frozen import Rows
from pipelines.inversion.people import Tested
from pipelines.inversion.work import Storage
from pipelines.setup import ports
from pipelines.table import read
from pipelines.table.pseudonyms import stored_subjects
from pipelines.table.row_cipher import open_row, row_key

_KEY_BYTES: Final = 32
_SEARCH_S: Final = 30.0


class Input(StrEnum):
    """What is inverted; the last two are no templates, and are shown as they are."""

    STORED = "stored embedding"
    CENTRED = "stored template of several photos"
    HELPER = "readable helper, random codeword"
    SEARCHED = "readable helper, searched"
    STRANGER = "face of somebody else"
    MEAN = "mean face"

    @property
    def is_inverted(self) -> bool:
        """Whether an inverter makes a face of it."""
        return self not in (Input.STRANGER, Input.MEAN)

    @property
    def is_row(self) -> bool:
        """Whether it comes from a protected row."""
        return self in (Input.HELPER, Input.SEARCHED)


@dataclass(frozen=True)
class Templates:
    """asked: places of the tested people who have what is inverted. people: of the m among them
    whose template was found. vectors: (m, n) unit rows.
    """

    asked: list[int]
    people: list[int]
    vectors: F64 = field(repr=False)


@dataclass(frozen=True)
class _Protected:
    """A row, with the key of its digests."""

    row: ProtectedTemplate
    key: bytes = field(repr=False)

    def matrix(self) -> F32:
        """The helper, (N, n), as whoever can read the row decodes it."""
        return matrix(self.row)

    def confirms(self, codes: Codes) -> bool:
        """Whether the row has the digests of a codeword."""
        return confirms(self.row, codes[0], self.key)

    def random(self) -> F64:
        """P' c' of a random codeword c': what the helper says without a search."""
        made: F64 = by_random_codewords(
            self.matrix()[None], self.row.params.alpha, secure_generator()
        )[0]
        return made

    def searched(self, space: Spectrum) -> F64 | None:
        """The template by the search of an audit; None where it gave up."""
        params, rng = self.row.params, secure_generator()
        if params.is_wide:
            found = recover_from_width(
                self.matrix(), params.alpha, rng, structure=params.structure,
                budget=Budget(1 << 40, _SEARCH_S), confirm=self.confirms,
            )  # fmt: skip
        else:
            found = recover_from_row(
                self.matrix(), space, params.alpha, rng, seconds=_SEARCH_S,
                confirm=self.confirms, structure=params.structure,
            )  # fmt: skip
        return found.templates[0] if found.success else None


def templates(
    kind: Input,
    people: Sequence[tuple[int, str, Tested]],
    embedded: F32,
    space: Spectrum,
    rows: tuple[Rows, Storage] | None,
) -> Templates:
    """Templates of some people. people: place among the tested ones, name, photos. embedded: of all
    photos, (k, n). space: of strangers. rows: of a table; None: made here by the product.
    """
    found: dict[int, F64 | None]
    if not kind.is_row:
        made = ((at, _of_photos(kind, embedded, one)) for at, _, one in people)
        found = {at: vector for at, vector in made if vector is not None}
    else:
        protected = _stored(people, *rows) if rows else _made(people, embedded)
        found = {
            at: own.random() if kind is Input.HELPER else own.searched(space)
            for at, own in protected.items()
        }
    usable = {at: vector for at, vector in found.items() if vector is not None}
    vectors = np.array(list(usable.values())).reshape(-1, embedded.shape[1])
    return Templates(list(found), list(usable), vectors)


def _of_photos(kind: Input, embedded: F32, one: Tested) -> F64 | None:
    places = list(one.own) if kind is Input.CENTRED else list(one.own)[:1]
    if kind is Input.CENTRED and len(places) < 2:
        return None
    some = embedded[places]
    usable = some[np.isfinite(some).all(axis=1)]
    try:
        return centre(usable, embedded.shape[1]) if len(usable) == len(some) else None
    except TemplateError:
        return None


def _made(people: Sequence[tuple[int, str, Tested]], embedded: F32) -> dict[int, _Protected]:
    """Fresh rows of people's first photos, with the default preset."""
    n = embedded.shape[1]
    found = {}
    for at, _, one in people:
        vector = embedded[one.own.start]
        if np.isfinite(vector).all():
            key = secrets.token_bytes(_KEY_BYTES)
            row = protect(unit_rows(vector, n)[0], preset(DEFAULT_PRESET, n), key)
            found[at] = _Protected(row, key)
    return found


def _stored(
    people: Sequence[tuple[int, str, Tested]], rows: Rows, storage: Storage
) -> dict[int, _Protected]:
    """The rows of a table, of those people whom it has one of."""
    path = Path(rows.keys)
    tables = ports.shared_tables(rows.dest, storage, path, rows.table_id)
    live = ports.keys(path, rows.table_id, rows.generation)
    subjects = stored_subjects(tables, live.table, [name for _, name, _ in people])
    opened = read.open_live_rows(tables, subjects, lambda g: ports.keys(path, rows.table_id, g))
    found = {}
    for (at, _, _), subject in zip(people, subjects, strict=True):
        own = opened[subject]
        if not isinstance(own, SubjectError):
            row, keys = own
            key = row_key(rows.table_id, row, keys)
            found[at] = _Protected(open_row(rows.table_id, row, keys), key)
    return found
