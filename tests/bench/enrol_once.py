"""One enrolment in a process of its own: when each shard was done, as JSON on standard output.

Arguments: a `pipelines.start.Request` as JSON.
"""

from __future__ import annotations

import json
import sys
import time

from pipelines import enrol, start
from pipelines.face_settings import FaceSettings
from pipelines.plan import Plan
from pipelines.summary import Tally


def main() -> None:
    asked = json.loads(sys.argv[1])
    faces = FaceSettings(**asked.pop("faces", {}))
    request = start.Request(faces=faces, **asked)
    prepared = start.prepare(request)
    seen: list[tuple[float, int, int]] = []

    def note(_plan: Plan, tally: Tally) -> None:
        seen.append((time.monotonic(), tally.inputs, tally.enrolled))

    with start.opened(request, prepared) as held:
        summary = enrol.enrol(held.job, held.dest, held.executor, note)
    print(json.dumps({"seen": seen, "stages": summary.stage_seconds, "failed": summary.failed}))


if __name__ == "__main__":
    main()
