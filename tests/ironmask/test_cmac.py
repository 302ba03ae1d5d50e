"""The codes are those of the standard, and of another implementation."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from ironmask.cmac import cmac

# NIST SP 800-38B, examples of AES-256.
KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
EXAMPLES = {
    16: "28a7023f452e8f82bd4bf28d8c37c35c",
    40: "aaf3d8f1de5640c232f5b169b9c911e6",
    64: "e1992190549f6ed5696a2c056c315410",
}


def one(message: bytes, key: bytes = KEY) -> bytes:
    return cmac(key, np.frombuffer(message, dtype=np.uint8)[None]).tobytes()


@pytest.mark.parametrize("length", EXAMPLES)
def test_the_standards_examples(length):
    assert one(MESSAGE[:length]).hex() == EXAMPLES[length]


@pytest.mark.parametrize("length", [1, 8, 15, 16, 17, 26, 31, 32, 33, 64, 100])
def test_as_another_implementation(length, rng):
    """Many keys, so that doubling meets both of its cases."""
    for _ in range(16):
        key, messages = rng.bytes(32), rng.integers(0, 256, (9, length), dtype=np.uint8)
        for message, found in zip(messages, cmac(key, messages), strict=True):
            other = CMAC(AES(key))
            other.update(message.tobytes())
            assert found.tobytes() == other.finalize()
