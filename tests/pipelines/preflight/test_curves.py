"""A recogniser's curve: measured on embeddings, stored with an evaluation, and as shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import lfw
from support.documents import GENERATED, texts
from support.shared import shared_or_skipped

from infra.store.objects import FsspecStore
from ironmask.errors import ParameterError, SourceError, TableError
from ironmask.metrics import Curve
from pipelines.preflight import curves
from pipelines.preflight.profile import Photos

PEOPLE, EACH, N = 40, 4, 64


def photos(rng, people=PEOPLE, each=EACH, noise=0.9) -> Photos:
    """People in no order, with one who has a single photo and one unusable photo."""
    owner = np.repeat(np.arange(people), each)
    vectors = rng.standard_normal((people, N))[owner] + noise * rng.standard_normal((len(owner), N))
    vectors[-1] = np.nan
    names = np.array([f"p{number:03d}" for number in owner])
    shuffled = rng.permutation(len(owner))[: -(each - 1)]
    return Photos(vectors[shuffled].astype(np.float32), names[shuffled])


@pytest.fixture
def rng():
    return np.random.default_rng(8)


@pytest.fixture
def some(rng) -> Photos:
    return photos(rng)


def written(path: Path, some: Photos) -> Path:
    table = pa.table({"subject_id": some.people.tolist(), "embedding": list(some.vectors)})
    pq.write_table(table, path)
    return path


def by_hand(some: Photos, count: int) -> tuple[list[float], list[float]]:
    """Genuine and impostor cosines, one by one."""
    unit = some.vectors / np.linalg.norm(some.vectors, axis=1, keepdims=True)
    own = {}
    for name, vector in zip(some.people, unit.astype(np.float64), strict=True):
        if np.isfinite(vector).all():
            own.setdefault(name, []).append(vector)
    templates = {name: sum(v[:count]) for name, v in own.items() if len(v) >= count}
    probes = [
        (name, vector)
        for name, vectors in own.items()
        for vector in (vectors[count:] if name in templates else vectors)
    ]
    genuine, impostor = [], []
    for name, template in templates.items():
        for other, probe in probes:
            cosine = float(template @ probe / np.linalg.norm(template))
            (genuine if other == name else impostor).append(cosine)
    return genuine, impostor


@pytest.mark.parametrize("count", [1, 3])
def test_first_photos_are_compared_with_all_others(some, count):
    curve = curves.compared(some, count)
    genuine, impostor = map(np.array, by_hand(some, count))
    assert (curve.genuine, curve.impostor) == (len(genuine), len(impostor))
    for place in (90, 100, 110, 120, 130):
        threshold = curve.thresholds[place]
        assert curve.fmr.value[place] == pytest.approx((impostor >= threshold).mean(), abs=2e-3)
        assert curve.fnmr.value[place] == (genuine < threshold).mean()


@pytest.mark.parametrize(
    ("people", "each", "count"), [(1, 5, 1), (5, 2, 3), (6, 2, 2)], ids=["one", "few", "no probe"]
)
def test_too_few_are_no_curve(rng, people, each, count):
    names = np.repeat([f"p{number}" for number in range(people)], each)
    vectors = rng.standard_normal((len(names), N)).astype(np.float32)
    with pytest.raises(SourceError, match=f"to enrol {count} of each"):
        curves.compared(Photos(vectors, names), count)


def same(one: Curve, other: Curve, digits: float = 0.0) -> bool:
    pairs = [(getattr(one.fmr, end), getattr(other.fmr, end)) for end in ("value", "low", "bound")]
    pairs += [(one.fnmr.high, other.fnmr.high), (one.thresholds, other.thresholds)]
    return all(np.allclose(a, b, rtol=digits, atol=0) for a, b in pairs)


def test_it_is_read_as_it_was_written(some):
    curve = curves.compared(some, 1)
    again = curves.from_rows(reversed(list(curves.rows(curve))))
    assert same(curve, again)
    assert (again.genuine, again.impostor) == (curve.genuine, curve.impostor)


def test_a_calibration_is_compared(some, tmp_path):
    path = written(tmp_path / "faces.parquet", some)
    found = curves.from_embeddings(str(path), 2, FsspecStore())
    assert same(found.curve, curves.compared(some, 2))
    assert (found.n, found.photos) == (N, 2)
    assert f"{path}, 2 photos enrolled" in found.source


def test_without_subjects_nobody_is_compared(some, tmp_path):
    path = tmp_path / "nameless.parquet"
    pq.write_table(pa.table({"embedding": list(some.vectors)}), path)
    with pytest.raises(SourceError, match="subject_id"):
        curves.from_embeddings(str(path), 1, FsspecStore())


class TestOfAnEvaluation:
    @pytest.fixture
    def out(self, some, tmp_path) -> Path:
        """Two kinds of templates, as a report writes them."""
        rows = []
        for count, centring in ((1, None), (3, "mean"), (3, "regression")):
            case = {"protocol": f"first:{count}", "centring": centring, "n": N, "photos": count}
            rows += [{**case, **row} for row in curves.rows(curves.compared(some, count))]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / curves.FILE)
        return tmp_path

    def test_the_first_is_taken_or_that_of_so_many_photos(self, out, some):
        for asked, count in ((None, 1), (1, 1), (3, 3)):
            found = curves.from_results(str(out), asked, FsspecStore())
            assert (found.photos, found.n) == (count, N)
            assert same(found.curve, curves.compared(some, count))
        assert found.source.endswith("first:3, mean")

    def test_another_number_of_photos_is_refused(self, out):
        with pytest.raises(ParameterError, match="templates of 1, 3 photos, none of 2"):
            curves.from_results(str(out), 2, FsspecStore())

    def test_of_no_evaluation(self, out, tmp_path):
        with pytest.raises(SourceError, match="holds no curve"):
            curves.from_results(str(tmp_path / "none"), None, FsspecStore())
        (out / curves.FILE).write_bytes(b"PAR1")
        with pytest.raises(TableError, match="is damaged"):
            curves.from_results(str(out), None, FsspecStore())


class TestShipped:
    @pytest.mark.parametrize(("asked", "has"), [(1, 1), (3, 3), (4, 5), (50, 5)])
    def test_of_as_many_photos_or_the_next_number(self, asked, has):
        found = curves.shipped(512, asked)
        assert found.photos == has
        assert f"on LFW, {has} photo" in found.source
        assert "other models differ" in found.source
        assert (", the most that is known;" in found.source) == (asked > has)

    def test_the_most_photos_are_what_the_help_says(self):
        most = curves.shipped(512, 10**6).photos
        every = texts()
        # In the help of enroll, reprotect and settings.
        assert every[GENERATED].count(f"Rates that come with the package go to {most};") == 3
        assert f"go to {most} photos" in " ".join(every["deploy/docs/settings.md"].split())

    def test_more_photos_accept_more_of_everybody(self):
        one, five = (curves.shipped(512, count).curve for count in (1, 5))
        place = int(np.searchsorted(one.thresholds, 0.35))
        assert five.fnmr.value[place] < one.fnmr.value[place]
        assert five.fmr.value[place] > one.fmr.value[place]

    def test_it_is_what_is_measured(self):
        shared_or_skipped()
        curve = curves.compared(lfw.photos(), 5)
        kept = curves.shipped(512, 5).curve
        assert same(curve, kept, digits=2e-3)
        assert (curve.genuine, curve.impostor) == (kept.genuine, kept.impostor)
