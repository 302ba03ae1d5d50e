"""The loop that people write, with every core that the libraries take by themselves.

Arguments: folder of a model, detector's side, seconds, `image` for a rotation after each image or
`none`, and a file that lists the images. Prints images a second.
"""

from __future__ import annotations

import sys
import time
from itertools import cycle
from pathlib import Path

import cv2
from insightface.app import FaceAnalysis
from scipy.stats import ortho_group


def main(model: str, side: str, seconds: str, every: str, files: str) -> None:
    app = FaceAnalysis(name=model, providers=["CPUExecutionProvider"])
    app.prepare(0, det_size=(int(side), int(side)))
    start, done = 0.0, -1
    for path in cycle(Path(files).read_text().splitlines()):
        app.get(cv2.imread(path), max_num=1)
        if every == "image":
            ortho_group.rvs(512)
        start = start or time.perf_counter()
        done += 1
        if time.perf_counter() - start > float(seconds):
            break
    print(done / (time.perf_counter() - start))


if __name__ == "__main__":
    main(*sys.argv[1:])
