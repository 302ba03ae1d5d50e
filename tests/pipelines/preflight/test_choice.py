"""Parameters by a false match rate: for a job that names none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.store.objects import FsspecStore
from ironmask import preset
from ironmask.errors import ParameterError
from pipelines.enrolment import request
from pipelines.enrolment.request import EnrolRequest
from pipelines.preflight import choice
from pipelines.spec.options import Goal, TemplateSettings, assembled
from pipelines.spec.template_job import SourceKind, TemplateJob

N, PEOPLE, EACH = 512, 300, 3


def job(n: int = N, **changes) -> TemplateJob:
    fields = {
        "source": "/nowhere", "dest": "/there", "kind": SourceKind.FOLDER, "model": "m",
        "params": preset("compact", n), **changes,
    }  # fmt: skip
    return TemplateJob(**fields)


def settled(
    one: TemplateJob, goal: Goal, named: TemplateSettings | None = None, given: str | None = None
):
    return choice.settle(one, goal, named or TemplateSettings(), given, FsspecStore())


def faces(path: Path, n: int = N, noise: float = 0.7) -> Path:
    rng = np.random.default_rng(6)
    owner = np.repeat(np.arange(PEOPLE), EACH)
    vectors = rng.standard_normal((PEOPLE, n))[owner] + noise * rng.standard_normal((len(owner), n))
    table = {"subject_id": owner.astype(str), "embedding": list(vectors.astype(np.float32))}
    pq.write_table(pa.table(table), path)
    return path


def test_without_a_goal_a_job_stays_as_it_is():
    one = job()
    assert settled(one, Goal()) == (one, None)
    for goal in (Goal(photos=2), Goal(floor_bits=90)):
        with pytest.raises(ParameterError, match="go with --fmr"):
            settled(one, goal)


def test_a_floor_that_no_template_may_have_is_refused():
    with pytest.raises(ParameterError, match="floor-bits 30 is below the least"):
        settled(job(), Goal(1e-5, floor_bits=30))


def test_a_job_gets_the_parameters_that_are_offered():
    found, offer = settled(job(), Goal(1e-5, floor_bits=100))
    assert offer.chosen.params == found.params
    assert found.params.bits >= 100
    assert offer.chosen.fmr.bound <= 1e-5
    assert "w600k_mbf on LFW, 1 photo" in offer.why
    assert settled(job(), Goal(1e-5, floor_bits=100))[0] == found
    several, _ = settled(job(), Goal(1e-5, photos=5, floor_bits=100))
    assert several.params != found.params


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (TemplateSettings(preset="strict"), "leave --preset out"),
        (TemplateSettings(alpha=16, code_width=1024), "leave --alpha, --code-width out"),
        (TemplateSettings(structure="real"), "leave --structure out"),
    ],
)
def test_parameters_are_named_or_chosen(named, says):
    with pytest.raises(ParameterError, match=says):
        settled(job(), Goal(1e-5), named)


def test_helpers_in_the_clear_are_never_wide():
    found, _ = settled(job(sealed=False), Goal(1e-5))
    assert not found.params.is_wide
    assert settled(job(), Goal(1e-5))[0].params.is_wide


def test_filling_costs_acceptance():
    tar = [settled(job(filling=r), Goal(1e-5))[1].candidates[0].tar for r in (0.0, 0.2)]
    assert tar[1] < tar[0]


def test_the_encoding_counts():
    """Fewer bytes a number leave room for a wider code, which accepts more."""
    goal = Goal(1e-4, floor_bits=100)
    small, offer = settled(job(encoding="bits4"), goal)
    assert offer.chosen.encoding == "bits4"
    assert small.params.code_width > settled(job(), goal)[0].params.code_width


class TestWhatIsKnown:
    def test_a_calibration_comes_first(self, tmp_path):
        path = str(faces(tmp_path / "faces.parquet"))
        found, offer = settled(job(), Goal(0.01), given=path)
        assert f"{path}, 1 photo enrolled" in offer.why
        assert found.params.n == N
        with pytest.raises(ParameterError, match=f"width {N}, the model's are 128"):
            settled(job(128), Goal(0.01), given=path)
        with pytest.raises(ParameterError, match="not supported"):
            settled(job(), Goal(1e-8), given=path)

    def test_stored_embeddings_serve_where_they_can_tell(self, tmp_path):
        path = str(faces(tmp_path / "faces.parquet"))
        stored = job(source=path, kind=SourceKind.EMBEDDINGS)
        _, offer = settled(stored, Goal(0.01))
        assert path in offer.why
        _, offer = settled(stored, Goal(1e-6))
        assert path not in offer.why
        assert "w600k_mbf on LFW" in offer.why
        nameless = tmp_path / "nameless.parquet"
        pq.write_table(pq.read_table(path).drop_columns("subject_id"), nameless)
        _, offer = settled(job(source=str(nameless), kind=SourceKind.EMBEDDINGS), Goal(0.01))
        assert "w600k_mbf on LFW" in offer.why


def test_helpers_in_the_clear_get_a_square_code(tmp_path):
    """Also where the default preset, which nobody chose, has a wider one."""
    path = str(faces(tmp_path / "faces.parquet"))
    options = {"plaintext_helpers": True, "accepted_risk": "stolen-rows", "fmr": 0.01}
    flat = {"source": path, "dest": str(tmp_path / "d"), **options}
    prepared = request.prepare(assembled(EnrolRequest, flat))
    assert prepared.job.params.code_width == N
    assert prepared.offer.chosen.params == prepared.job.params
