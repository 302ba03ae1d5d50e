"""A picture of some tested people: their photos, and what inverters make of their templates.

It shows faces of real people. So it is made on request alone, in a folder of its own.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from infra.faces.pictures import png
from ironmask.attacks.inversion import inverted
from ironmask.errors import ImageError
from pipelines.inversion.inputs import Input
from pipelines.inversion.units import Around
from pipelines.ports import U8
from pipelines.table import layout

FOLDER: Final = "contact-sheet"
_PICTURE: Final = "faces.png"
_WARNING: Final = "WARNING.txt"
_SHOWN: Final = 8
_INPUTS: Final = (Input.STORED, Input.HELPER, Input.SEARCHED)


def write(around: Around) -> list[str]:
    """Write the picture and its warning. Returns their addresses."""
    people = range(min(_SHOWN, len(around.drawn.tested)))
    columns = {"photo": _photos(around, people)} | _reconstructions(around, people)
    grid = np.concatenate([np.concatenate(list(some), axis=0) for some in columns.values()], axis=1)
    folder = layout.join(around.what.out, FOLDER)
    picture, warning = layout.join(folder, _PICTURE), layout.join(folder, _WARNING)
    around.store.write(warning, _warning(list(columns)).encode())
    around.store.write(picture, png(grid))
    return [picture, warning]


def _photos(around: Around, people: range) -> U8:
    places = [around.drawn.tested[at].own.start for at in people]
    blank = np.zeros((112, 112, 3), dtype=np.uint8)
    crops = around.base.crops(places)
    return np.stack([blank if isinstance(c, ImageError) else c[..., ::-1] for c in crops])


def _reconstructions(around: Around, people: range) -> dict[str, U8]:
    """Columns by what they show: (people, 112, 112, 3) uint8 RGB, black where there is nothing."""
    made = {kind: around.templates(kind, people) for kind in _INPUTS}
    columns = {}
    for kind, templates in made.items():
        for one, inverter in zip(around.what.inverters, around.inverters, strict=True):
            column = np.zeros((len(people), 112, 112, 3), dtype=np.uint8)
            if templates.people:
                column[templates.people] = inverted(inverter, templates.vectors)
            columns[f"{one.label} from: {kind}"] = column
    return columns


def _warning(columns: list[str]) -> str:
    told = "\n".join(f"  {place}. {name}" for place, name in enumerate(columns, 1))
    return (
        "This folder shows faces of real people, and faces that were made from their templates.\n"
        "Both are personal data: keep it as safe as the photos, do not pass it on, and remove it\n"
        f"once it has been looked at.\n\nColumns of {_PICTURE}, from the left; a row a person:\n"
        f"{told}\n"
    )
