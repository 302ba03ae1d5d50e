"""The secure source of randomness.

A hidden rotation must never be derivable from anything stored: given the rotation, the codeword
falls to a one-dimensional search. So every generator made here takes a fresh 256-bit key from the
operating system and keeps nothing that could rebuild it. Tests alone pass a seeded generator.
"""

from __future__ import annotations

import secrets

import numpy as np
from randomgen import ChaCha

KEY_BITS = 256


def secure_generator() -> np.random.Generator:
    """Return a generator on a ChaCha stream (20 rounds) under a fresh 256-bit key.

    Make one for each batch of work, inside the process that uses it: a generator that is copied
    by a fork or a pickle would repeat its stream.
    """
    return np.random.Generator(ChaCha(key=secrets.randbits(KEY_BITS), rounds=20))
