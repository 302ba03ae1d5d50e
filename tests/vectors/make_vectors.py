"""Write the test vectors of ironmask's byte formats, in plain Python.

The program shares no code with the package: struct, hashlib, itertools and integer arithmetic only.
Run `python tests/vectors/make_vectors.py [folder]`; a test does, and compares with what is stored.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import struct
import sys
from pathlib import Path

SCHEME_VERSION = 1
STEPS = {4: 0.3352, 5: 0.1881, 6: 0.1041}
CODEWORD_SHAPES = [(64, 4), (512, 16), (32767, 8), (32768, 8), (1 << 20, 12)]
DIGEST_PARAMS = [(64, 3, 0), (64, 3, 1), (512, 16, 0), (512, 16, 4), (512, 20, 4), (40000, 8, 2)]


def draw_codeword(source: random.Random, n: int, alpha: int) -> list[int]:
    """A signed support that always holds the first and the last index."""
    middle = source.sample(range(2, n), alpha - 2)
    return [source.choice((-1, 1)) * index for index in sorted([1, *middle, n])]


def canonical(codeword: list[int], n: int) -> bytes:
    letter = "h" if n <= 32767 else "i"
    return struct.pack(f"<{len(codeword)}{letter}", *codeword)


def tags(codeword: list[int], n: int, alpha: int, tolerance: int, key: bytes) -> list[bytes]:
    salt = struct.pack("<IIII", SCHEME_VERSION, n, alpha, tolerance)
    size = 16 if tolerance else 32
    found = []
    for subset in itertools.combinations(codeword, alpha - tolerance):
        keyed = hashlib.blake2b(
            key + canonical(list(subset), n),
            digest_size=size,
            salt=salt,
            person=b"ironmask digest\x00",
        )
        found.append(keyed.digest())
    return sorted(found)


def codeword_vectors() -> list[dict[str, object]]:
    source = random.Random(1)
    vectors: list[dict[str, object]] = []
    for n, alpha in CODEWORD_SHAPES:
        codeword = draw_codeword(source, n, alpha)
        vectors.append({"n": n, "codeword": codeword, "bytes": canonical(codeword, n).hex()})
    return vectors


def digest_vectors() -> list[dict[str, object]]:
    source = random.Random(2)
    vectors: list[dict[str, object]] = []
    for n, alpha, tolerance in DIGEST_PARAMS:
        key = source.randbytes(32)
        codeword = draw_codeword(source, n, alpha)
        found = tags(codeword, n, alpha, tolerance, key)
        vectors.append(
            {
                "n": n,
                "alpha": alpha,
                "tolerance": tolerance,
                "key": key.hex(),
                "codeword": codeword,
                "tags": len(found),
                "first_tag": found[0].hex(),
                "sha256_of_all": hashlib.sha256(b"".join(found)).hexdigest(),
            }
        )
    return vectors


def packed_entries(data: bytes, bits: int, n: int) -> list[float]:
    """Big-endian bit fields, the middle of level k being (k - half + 1/2) steps."""
    field = int.from_bytes(data, "big") >> (len(data) * 8 - n * n * bits)
    levels = [(field >> (bits * (n * n - 1 - i))) & ((1 << bits) - 1) for i in range(n * n)]
    middle = (1 << (bits - 1)) - 0.5
    return [(level - middle) * STEPS[bits] / math.sqrt(n) for level in levels]


def int8_helper(source: random.Random, n: int) -> tuple[bytes, list[float]]:
    scales = struct.pack(f"<{n}e", *(source.uniform(1e-3, 8e-3) for _ in range(n)))
    levels = [source.randint(-127, 127) for _ in range(n * n)]
    rounded = struct.unpack(f"<{n}e", scales)
    entries = [level * rounded[i // n] for i, level in enumerate(levels)]
    return scales + struct.pack(f"{n * n}b", *levels), entries


def float_helper(source: random.Random, n: int, letter: str) -> tuple[bytes, list[float]]:
    data = struct.pack(f"<{n * n}{letter}", *(source.gauss(0, 0.3) for _ in range(n * n)))
    return data, list(struct.unpack(f"<{n * n}{letter}", data))


def helper_vectors() -> list[dict[str, object]]:
    source = random.Random(3)
    vectors: list[dict[str, object]] = []
    for n in (3, 4):
        found = {
            "float32.1": float_helper(source, n, "f"),
            "float16.1": float_helper(source, n, "e"),
            "int8.1": int8_helper(source, n),
        }
        for bits in (6, 5, 4):
            unused = -n * n * bits % 8
            field = source.getrandbits(n * n * bits) << unused
            data = field.to_bytes((n * n * bits + unused) // 8, "big")
            found[f"bits{bits}.1"] = data, packed_entries(data, bits, n)
        for tag, (data, entries) in found.items():
            vectors.append({"tag": tag, "n": n, "bytes": data.hex(), "entries": entries})
    return vectors


def main(folder: Path) -> None:
    files = {
        "codewords.json": codeword_vectors(),
        "digests.json": digest_vectors(),
        "helpers.json": helper_vectors(),
    }
    for name, vectors in files.items():
        lines = ",\n".join(json.dumps(vector) for vector in vectors)
        (folder / name).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
