"""One enrolment in a process of its own: when each shard was done, as JSON on standard output.

Arguments: a `pipelines.enrolment.request.EnrolRequest` as JSON.
"""

from __future__ import annotations

import json
import sys
import time

from pipelines.enrolment import hold, job
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import EnrolRequest
from pipelines.plan.plans import Plan
from pipelines.run.summary import Tally
from pipelines.spec.faces import FaceSettings


def main() -> None:
    asked = json.loads(sys.argv[1])
    faces = FaceSettings(**asked.pop("faces", {}))
    request = EnrolRequest(faces=faces, **asked)
    prepared = enrolment_request.prepare(request)
    seen: list[tuple[float, int, int]] = []

    def note(_plan: Plan, tally: Tally) -> None:
        seen.append((time.monotonic(), tally.inputs, tally.enrolled))

    with hold.opened(request, prepared) as held:
        summary = job.enrol(held.job, held.dest, held.executor, note)
    print(json.dumps({"seen": seen, "stages": summary.stage_seconds, "failed": summary.failed}))


if __name__ == "__main__":
    main()
