"""The kernels in one thread: protection, verification, encodings, tiles."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import ortho_group
from threadpoolctl import threadpool_limits

from infra.keys.key_file import KeyFile
from ironmask import Params, Protector, codeword, helper, preset, secure_generator, tiles, verify
from ironmask.arrays import F32
from ironmask.digest import digest_bytes
from ironmask.random import fill_normals
from ironmask.rotation import Sampler
from pipelines.ports import GenerationKeys

from .table import Row, compare

N = 512
BEFORE = Params(N, 16, 4, version=1)
"""What `balanced` stood for in scheme version 1."""


def some_keys(folder: Path) -> GenerationKeys:
    file = KeyFile.create(folder / "keys.json", "bench")
    file.add_generation(1)
    return file.generation(1)


def gemm_limit(normals: str) -> Callable[[], object]:
    """4/3 n^3 flops, two thirds of one product's, and n^2 / 2 normals of a secure generator.

    normals: NumPy's own method, or the faster one of this package.
    """
    rng = secure_generator()
    a, b = (rng.standard_normal((N, N), dtype=np.float32) for _ in range(2))
    part = np.ascontiguousarray(b[:, : 2 * N // 3])
    drawn, product = np.empty(N * N // 2, dtype=np.float32), np.empty_like(part)

    def work() -> object:
        if normals == "numpy":
            rng.standard_normal(dtype=np.float32, out=drawn)
        else:
            fill_normals(rng, drawn)
        return np.matmul(a, part, out=product)

    return work


def qr_with_sign_fix() -> object:
    q, r = np.linalg.qr(np.random.standard_normal((N, N)))
    return q * np.sign(r.diagonal())


def protection() -> list[Row]:
    """Sampling, rotation, int8, digests, encryption and the check of the finished row."""
    rng = secure_generator()
    with tempfile.TemporaryDirectory() as folder:
        keys = some_keys(Path(folder))
    key, template = keys.row_key("bench"), rng.standard_normal(N)
    sampler = Sampler(N)
    plain, tolerant = (Protector(params) for params in (preset("paper", N), BEFORE))
    row = tolerant.protect(template, key)

    def one() -> bytes:
        return keys.encrypt(plain.protect(template, key).helper, b"bound")

    def whole() -> bytes:
        return keys.encrypt(tolerant.protect(template, key).helper, b"bound")

    def haar() -> object:
        return sampler.haar(rng)

    p = helper.decode([row.helper], BEFORE, row.encoding)
    scipys = lambda: ortho_group.rvs(N)  # noqa: E731
    many = f"protect, {BEFORE.digest_count:,} digests"
    limit, strict = gemm_limit("numpy"), gemm_limit("fast")
    with threadpool_limits(1):
        return [
            compare("Haar rotation", haar, "scipy ortho_group.rvs", scipys),
            compare("Haar rotation", haar, "numpy QR with sign fix", qr_with_sign_fix),
            compare("Haar rotation", haar, "GEMM limit, NumPy's normals", limit),
            compare("Haar rotation", haar, "GEMM limit, our normals", strict),
            compare("protect, 1 digest", one, "scipy ortho_group.rvs", scipys, at_most=0.2),
            compare("protect, 1 digest", one, "GEMM limit, NumPy's normals", limit, at_most=2.5),
            compare(many, whole, "scipy ortho_group.rvs", scipys, at_most=0.2),
            compare(many, whole, "GEMM limit, NumPy's normals", limit, at_most=2.5),
            compare(many, whole, "GEMM limit, our normals", strict),
            compare("verify", lambda: verify(row, template, key), many, whole),
            compare(
                "int8 encode", lambda: helper.encode(p, BEFORE), "copy of P", lambda: p.tobytes()
            ),
        ]


def _population(
    params: Params, count: int, probes: int
) -> tuple[list[F32], list[tiles.Screen], F32]:
    """Helpers, screens and probes, of which every hundredth belongs to a template."""
    rng, sampler = secure_generator(), Sampler(N)
    owners = rng.standard_normal((count, N))
    owners /= np.linalg.norm(owners, axis=1, keepdims=True)
    helpers, screens = [], []
    for owner in owners:
        code = codeword.sample(rng, N, params.alpha)
        p = sampler.carrying(rng, owner, codeword.dense(code, N)[0]).copy()
        helpers.append(p)
        screens.append(tiles.screen(p, code[0]))
    seen = rng.standard_normal((probes, N)) / np.sqrt(N)
    own = owners[np.arange(len(seen[::100])) % count]
    seen[::100] = 1.3 * own + seen[::100]
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    return helpers, screens, seen.astype(np.float32)


def tile_kernel() -> list[Row]:
    """All pairs of 32 templates and 2,048 probes; the counts are compared as well."""
    settings = [(16, 4), (16, 0), (12, 4), (20, 4)]
    return [row for alpha, tolerance in settings for row in _tile(Params(N, alpha, tolerance))]


def _tile(params: Params) -> list[Row]:
    helpers, screens, probes = _population(params, 32, 2048)

    def fast() -> int:
        return len(tiles.accepted(screens, lambda i: helpers[i], probes, params).probe)

    def full() -> None:
        for p, one in zip(helpers, screens, strict=True):
            codeword.agreement(codeword.decode(probes @ p.T, params.alpha), one.code)

    def expected() -> int:
        judged = (
            tiles.judge(p, s.code, probes, params) for p, s in zip(helpers, screens, strict=True)
        )
        return sum(int((tolerances > 0).sum()) for _, tolerances in judged)

    def products() -> None:
        for p in helpers:
            probes @ p.T

    what = f"tile, alpha {params.alpha}, tolerance {params.tolerance}"
    with threadpool_limits(1):
        found, known = fast(), expected()
        agree = "same counts" if found == known else f"COUNTS DIFFER, {found} and {known}"
        turns = {"rounds": 5, "repeat": 1}
        against = f"full products and decoding, {agree}"
        return [
            compare(against, full, what, fast, **turns, at_least=25),
            compare("full products alone", products, what, fast, **turns),
        ]


def sizes() -> list[str]:
    """Bytes of helpers and tags, before encryption, which adds the same to each."""
    shapes = {
        "version 1": BEFORE,
        "quaternionic (512, 16, 4)": Params(N, 16, 4, N, "quaternionic"),
        "quaternionic (1024, 16, 3)": Params(N, 16, 3, 2 * N, "quaternionic"),
        "default": preset("balanced", N),
    }
    lines = [
        "| a helper's bytes | " + " | ".join(shapes) + " |",
        "| --- |" + " --- |" * len(shapes),
    ]
    for name in helper.ENCODINGS:
        cells = (f"{helper.nbytes(params, name):,}" for params in shapes.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    tags = (f"{digest_bytes(params):,}" for params in shapes.values())
    return [*lines, "| tags | " + " | ".join(tags) + " |"]
