"""Re-keying: an encoded helper P becomes S P, with S a secret signed permutation of the rows.

The rows are the stored ones: of a quaternionic helper, whole rows of quaternions. Then S commutes
with quaternions on the right as P does, and the four entries of a codeword that belong to one row
stay together.

S comes from a 32-byte key that belongs to this row alone. Neither the template nor the codeword is
needed, and undoing S gives P back byte for byte. S P takes a probe to S c, whose tags nobody can
make from those of c; so undo S before a row is verified. With one more layer on the tags
(`ironmask.digest.relayered`), S brings a row under new keys while its subject is away.

It has limits:

- It tells nothing new about t, since S P is P and independent randomness. But it takes nothing back
  either: a copy of P still tells all that P ever told.
- It unlinks nothing. The rows of P and S P are equal up to order and sign, so whoever sees both
  knows that they belong together, and knows S.
- It revokes no codeword: who knows c and learns S knows S c.

So this is re-keying, not renewal: a new codeword and a new rotation need the template
(`ironmask.renewal`, or an enrolment).
"""

from __future__ import annotations

import struct
from hashlib import shake_256
from typing import Final

import numpy as np

from ironmask import helper
from ironmask.errors import ParameterError
from ironmask.helper import Order, Signs
from ironmask.params import Params

KEY_BYTES: Final = 32
_DOMAIN: Final = b"ironmask shuffle"
_DRAW_BYTES: Final = 8


def applied(helper_bytes: bytes, params: Params, encoding: str, key: bytes) -> bytes:
    """S P for an encoded helper P of some parameters, in the same encoding.

    encoding: its name, or what the row records. key: 32 secret bytes that belong to this row alone.
    Raises `EncodingError` where the helper is damaged, `ParameterError` for a key of another length
    or an unknown encoding.
    """
    order, negative = signed_order(key, params)
    return helper.moved(helper_bytes, params, encoding, order, negative)


def undone(helper_bytes: bytes, params: Params, encoding: str, key: bytes) -> bytes:
    """P for an encoded helper S P of some parameters, byte for byte; see `applied`."""
    order, negative = signed_order(key, params)
    back = np.argsort(order)
    return helper.moved(helper_bytes, params, encoding, back, negative[back])


def signed_order(key: bytes, params: Params) -> tuple[Order, Signs]:
    """S of a key: row i of S P is row order[i] of P, negated where negative[i]; (r,) each.

    SHAKE-256 (FIPS 202) expands a domain, the scheme's version, the number r of stored rows and the
    key. First come eight
    bytes for each row: they sort the row numbers, equal ones by number. Then comes one bit for
    each row, its sign. The result is as secret as the key.
    """
    if len(key) != KEY_BYTES:
        raise ParameterError(f"a shuffle's key has {KEY_BYTES} bytes, not {len(key)}")
    rows, _ = params.helper_shape
    domain = _DOMAIN + struct.pack("<2I", params.version, rows)
    stream = shake_256(domain + key).digest(_DRAW_BYTES * rows + -(-rows // 8))
    draws = np.frombuffer(stream, "<u8", count=rows)
    bits = np.frombuffer(stream, np.uint8, offset=_DRAW_BYTES * rows)
    return np.argsort(draws, kind="stable"), np.unpackbits(bits, count=rows).astype(np.bool_)
