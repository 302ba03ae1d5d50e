"""Write the test vectors of ironmask's byte formats, in plain Python.

The program shares no code with the package: struct, hashlib, itertools, integer arithmetic, and the
CMAC of the cryptography package.
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
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

FIRST_VERSION = 1
SCHEME_VERSION = 2
STEPS = {4: 0.3352, 5: 0.1881, 6: 0.1041}
CODEWORD_SHAPES = [(64, 4), (512, 16), (32767, 8), (32768, 8), (1 << 20, 12)]
DIGEST_PARAMS = [(64, 3, 0), (64, 3, 1), (512, 16, 0), (512, 16, 4), (512, 20, 4), (40000, 8, 2)]
# n, alpha, tolerance, N, structure.
DIGEST_PARAMS_2 = [
    (64, 3, 0, 64, "real"),
    (64, 3, 1, 64, "quaternionic"),
    (65, 8, 2, 130, "real"),
    (512, 16, 0, 512, "real"),
    (512, 16, 4, 512, "quaternionic"),
    (512, 18, 3, 1024, "quaternionic"),
    (512, 16, 3, 1024, "real"),
    (512, 8, 2, 40000, "quaternionic"),
]
# Rows, n, N: real and square, wide, quaternionic of either.
HELPER_SHAPES = [(4, 3, 4), (2, 8, 8), (3, 8, 12)]
SHUFFLES = [
    (1, 64, 64, "real"),
    (2, 64, 64, "real"),
    (2, 65, 130, "real"),
    (2, 64, 64, "quaternionic"),
    (2, 68, 132, "quaternionic"),
]
# (row, column) of the product of two unit quaternions, as sign and unit: i j = k.
HAMILTON = [
    [(1, 0), (1, 1), (1, 2), (1, 3)],
    [(1, 1), (-1, 0), (1, 3), (-1, 2)],
    [(1, 2), (-1, 3), (-1, 0), (1, 1)],
    [(1, 3), (1, 2), (-1, 1), (-1, 0)],
]


def draw_codeword(source: random.Random, n: int, alpha: int) -> list[int]:
    """A signed support that always holds the first and the last index."""
    middle = source.sample(range(2, n), alpha - 2)
    return [source.choice((-1, 1)) * index for index in sorted([1, *middle, n])]


def canonical(codeword: list[int], n: int) -> bytes:
    letter = "h" if n <= 32767 else "i"
    return struct.pack(f"<{len(codeword)}{letter}", *codeword)


def tags(codeword: list[int], n: int, alpha: int, tolerance: int, key: bytes) -> list[bytes]:
    salt = struct.pack("<IIII", FIRST_VERSION, n, alpha, tolerance)
    subsets = itertools.combinations(codeword, alpha - tolerance)
    size = 16 if tolerance else 32
    parts = (canonical(list(subset), n) for subset in subsets)
    return keyed(parts, key, size, salt, b"ironmask digest\x00")


def keyed(parts: Iterable[bytes], key: bytes, size: int, salt: bytes, person: bytes) -> list[bytes]:
    made = (hashlib.blake2b(key + p, digest_size=size, salt=salt, person=person) for p in parts)
    return sorted(one.digest() for one in made)


def authenticated(parts: Iterable[bytes], key: bytes, salt: bytes, person: bytes) -> list[bytes]:
    own = hashlib.blake2b(key=key, digest_size=32, salt=salt, person=person).digest()
    found = []
    for part in parts:
        code = CMAC(AES(own))
        code.update(part)
        found.append(code.finalize()[:8])
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


def digest_vectors_2() -> list[dict[str, object]]:
    """Of version 2: tags of eight bytes, and those under one more layer."""
    source = random.Random(4)
    vectors: list[dict[str, object]] = []
    for n, alpha, tolerance, width, structure in DIGEST_PARAMS_2:
        key, layer = source.randbytes(32), source.randbytes(32)
        codeword = draw_codeword(source, width, alpha)
        scalars = 4 if structure == "quaternionic" else 1
        salt = struct.pack("<BBBBII", SCHEME_VERSION, scalars, alpha, tolerance, n, width)
        salt += bytes(4)
        subsets = itertools.combinations(codeword, alpha - tolerance)
        parts = (canonical(list(subset), width) for subset in subsets)
        found = authenticated(parts, key, salt, b"ironmask digest\x00")
        above = authenticated(found, layer, salt, b"ironmask layer\x00\x00")
        vectors.append(
            {
                "version": SCHEME_VERSION,
                "n": n,
                "alpha": alpha,
                "tolerance": tolerance,
                "code_width": width,
                "structure": structure,
                "key": key.hex(),
                "layer": layer.hex(),
                "codeword": codeword,
                "tags": len(found),
                "first_tag": found[0].hex(),
                "sha256_of_all": hashlib.sha256(b"".join(found)).hexdigest(),
                "sha256_under_the_layer": hashlib.sha256(b"".join(above)).hexdigest(),
            }
        )
    return vectors


def packed_entries(data: bytes, bits: int, count: int, width: int) -> list[float]:
    """Big-endian bit fields, the middle of level k being (k - half + 1/2) steps."""
    field = int.from_bytes(data, "big") >> (len(data) * 8 - count * bits)
    levels = [(field >> (bits * (count - 1 - i))) & ((1 << bits) - 1) for i in range(count)]
    middle = (1 << (bits - 1)) - 0.5
    return [(level - middle) * STEPS[bits] / math.sqrt(width) for level in levels]


def int8_helper(source: random.Random, rows: int, n: int) -> tuple[bytes, list[float]]:
    scales = struct.pack(f"<{rows}e", *(source.uniform(1e-3, 8e-3) for _ in range(rows)))
    levels = [source.randint(-127, 127) for _ in range(rows * n)]
    rounded = struct.unpack(f"<{rows}e", scales)
    entries = [level * rounded[i // n] for i, level in enumerate(levels)]
    return scales + struct.pack(f"{rows * n}b", *levels), entries


def float_helper(source: random.Random, count: int, letter: str) -> tuple[bytes, list[float]]:
    data = struct.pack(f"<{count}{letter}", *(source.gauss(0, 0.3) for _ in range(count)))
    return data, list(struct.unpack(f"<{count}{letter}", data))


Encoded = dict[str, tuple[bytes, list[float]]]


def encoded(source: random.Random, rows: int, n: int, width: int) -> Encoded:
    """Bytes and entries, row by row, in each encoding."""
    count = rows * n
    found = {
        "float32.1": float_helper(source, count, "f"),
        "float16.1": float_helper(source, count, "e"),
        "int8.1": int8_helper(source, rows, n),
    }
    for bits in (6, 5, 4):
        unused = -count * bits % 8
        field = source.getrandbits(count * bits) << unused
        data = field.to_bytes((count * bits + unused) // 8, "big")
        found[f"bits{bits}.1"] = data, packed_entries(data, bits, count, width)
    return found


def helper_vectors() -> list[dict[str, object]]:
    source = random.Random(3)
    vectors: list[dict[str, object]] = []
    for n in (3, 4):
        for tag, (data, entries) in encoded(source, n, n, n).items():
            vectors.append({"tag": tag, "n": n, "bytes": data.hex(), "entries": entries})
    return vectors


def helper_vectors_2() -> list[dict[str, object]]:
    """Of version 2: any number of rows, and the steps of the code's width."""
    source = random.Random(5)
    return [
        {
            "tag": tag,
            "rows": rows,
            "n": n,
            "code_width": width,
            "bytes": data.hex(),
            "entries": entries,
        }
        for rows, n, width in HELPER_SHAPES
        for tag, (data, entries) in encoded(source, rows, n, width).items()
    ]


def product(left: list[int], right: list[int]) -> list[int]:
    """Hamilton's product of quaternions (w, x, y, z)."""
    found = [0, 0, 0, 0]
    for a, b in itertools.product(range(4), repeat=2):
        sign, unit = HAMILTON[a][b]
        found[unit] += sign * left[a] * right[b]
    return found


def quaternion_vectors() -> list[dict[str, object]]:
    """Rows of a quaternionic matrix, a vector, and their product; integers, so all is exact."""
    source = random.Random(6)
    vectors: list[dict[str, object]] = []
    for rows, columns in [(1, 1), (2, 3), (4, 2)]:
        matrix = [
            [[source.randint(-9, 9) for _ in range(4)] for _ in range(columns)] for _ in range(rows)
        ]
        vector = [[source.randint(-9, 9) for _ in range(4)] for _ in range(columns)]
        image = [
            [sum(parts) for parts in zip(*map(product, row, vector), strict=True)] for row in matrix
        ]
        vectors.append({"matrix": matrix, "vector": vector, "image": image})
    return vectors


def shuffle_vectors() -> list[dict[str, object]]:
    source = random.Random(7)
    vectors: list[dict[str, object]] = []
    for version, n, width, structure in SHUFFLES:
        key = source.randbytes(32)
        rows = width // 4 if structure == "quaternionic" else width
        domain = b"ironmask shuffle" + struct.pack("<II", version, rows)
        stream = hashlib.shake_256(domain + key).digest(8 * rows + (rows + 7) // 8)
        draws = struct.unpack(f"<{rows}Q", stream[: 8 * rows])
        signs = stream[8 * rows :]
        vectors.append(
            {
                "version": version,
                "n": n,
                "code_width": width,
                "structure": structure,
                "key": key.hex(),
                "order": sorted(range(rows), key=lambda i: (draws[i], i)),
                "negative": [signs[i // 8] >> (7 - i % 8) & 1 for i in range(rows)],
            }
        )
    return vectors


def main(folder: Path) -> None:
    files = {
        "codewords.json": codeword_vectors(),
        "digests.json": digest_vectors(),
        "helpers.json": helper_vectors(),
        "digests_v2.json": digest_vectors_2(),
        "helpers_v2.json": helper_vectors_2(),
        "quaternions.json": quaternion_vectors(),
        "shuffles.json": shuffle_vectors(),
    }
    for name, vectors in files.items():
        lines = ",\n".join(json.dumps(vector) for vector in vectors)
        (folder / name).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
