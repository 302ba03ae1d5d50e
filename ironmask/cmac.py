"""AES-CMAC of many messages of one length (NIST SP 800-38B, with a key of 256 bits).

A message authentication code with a key is a pseudo-random function of its messages. Here all
messages go through each of its blocks together, so a thousand cost little more than one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ironmask.arrays import U8

BLOCK_BYTES: Final = 16
# Doubling in the field of 2^128 elements subtracts its polynomial where a bit falls off.
_POLYNOMIAL: Final = 0x87


def cmac(key: bytes, messages: U8) -> U8:
    """The codes of k messages, (k, width) uint8 with width >= 1, under a key of 32 bytes: (k, 16).

    Whoever tags messages of several lengths needs a key for each, or their lengths inside.
    """
    k, width = messages.shape
    blocks = -(-width // BLOCK_BYTES)
    padded = np.zeros((k, blocks * BLOCK_BYTES), dtype=np.uint8)
    padded[:, :width] = messages
    # ECB is the bare block cipher, and nothing that it gives leaves but the last block.
    encrypt = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305
    last = _doubled(encrypt.update(bytes(BLOCK_BYTES)))
    if width % BLOCK_BYTES:
        padded[:, width] = 0x80
        last = _doubled(last)
    padded[:, -BLOCK_BYTES:] ^= np.frombuffer(last, dtype=np.uint8)
    chained = np.zeros((k, BLOCK_BYTES), dtype=np.uint8)
    for start in range(0, padded.shape[1], BLOCK_BYTES):
        block = chained ^ padded[:, start : start + BLOCK_BYTES]
        chained = np.frombuffer(encrypt.update(block.tobytes()), dtype=np.uint8).reshape(k, -1)
    return chained


def _doubled(block: bytes) -> bytes:
    number = int.from_bytes(block, "big")
    carried = _POLYNOMIAL if number >> (8 * BLOCK_BYTES - 1) else 0
    return ((number << 1 & (1 << 8 * BLOCK_BYTES) - 1) ^ carried).to_bytes(BLOCK_BYTES, "big")
