"""Measure decode success against the angle, without the package: NumPy and no decoder.

By symmetry the codeword is the first alpha coordinates, all positive. Decoding succeeds when its
least signed coordinate exceeds the largest other one in size. Takes about a minute.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

# The codes' width is the embeddings' where no other is said.
ALPHAS = {512: (8, 12, 14, 16, 24), 1024: (16, 18)}
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


if __name__ == "__main__":
    generator = np.random.default_rng(2104_02239)
    cells = [
        {
            **({} if width == 512 else {"code_width": width}),
            "alpha": alpha,
            "angles": list(ANGLES),
            "rates": rates(generator, alpha, width),
        }
        for width, alphas in ALPHAS.items()
        for alpha in alphas
    ]
    lines = ",\n".join(json.dumps(cell) for cell in cells)
    Path(__file__).with_name("decode_rates.json").write_text(f"[\n{lines}\n]\n")
