"""Measure decode success against the angle, without the package: NumPy and no decoder.

By symmetry the codeword is the first alpha coordinates, all positive. Decoding succeeds when its
least signed coordinate exceeds the largest other one in size. Takes about a minute.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

# Of codes as wide as the embeddings, and of wide ones.
N, WIDE = 512, 1024
ALPHAS = {N: (8, 12, 14, 16, 24), WIDE: (16, 18)}
SEEDS = {N: 2104_02239, WIDE: 2104_02240}
ANGLES = (40, 45, 47, 50, 55)
TRIALS, BLOCK = 1_000_000, 20_000


def extremes(rng: np.random.Generator, alpha: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Least entry on the support and largest size off it, of uniform directions normal to c."""
    noise = rng.standard_normal((BLOCK, width), dtype=np.float32)
    noise[:, :alpha] -= noise[:, :alpha].mean(axis=1, keepdims=True)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return noise[:, :alpha].min(axis=1), np.abs(noise[:, alpha:]).max(axis=1)


def rates(rng: np.random.Generator, alpha: int, width: int) -> list[float]:
    hits = np.zeros(len(ANGLES), dtype=np.int64)
    for _ in range(TRIALS // BLOCK):
        least, largest = extremes(rng, alpha, width)
        for i, angle in enumerate(np.radians(ANGLES)):
            signal = np.cos(angle) / np.sqrt(alpha)
            hits[i] += np.count_nonzero(signal + np.sin(angle) * least > np.sin(angle) * largest)
    return [round(float(h) / TRIALS, 6) for h in hits]


def cells(width: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(SEEDS[width])
    named: dict[str, object] = {} if width == N else {"code_width": width}
    return [
        {**named, "alpha": alpha, "angles": list(ANGLES), "rates": rates(rng, alpha, width)}
        for alpha in ALPHAS[width]
    ]


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(cell) for width in ALPHAS for cell in cells(width))
    Path(__file__).with_name("decode_rates.json").write_text(f"[\n{lines}\n]\n")
