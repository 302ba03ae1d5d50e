"""An evaluation's numbers: every comparison once, the same in any order, and told as they are."""

from __future__ import annotations

import math

import pytest
from support.destinations import WIDTH
from support.evaluations import EACH, PEOPLE, evaluated, evaluation, faces, put
from support.memory import MemoryStore

from ironmask.errors import ProtocolError, SourceError, StorageError
from pipelines.evaluation import blocks
from pipelines.evaluation.blocks import Sources
from pipelines.evaluation.frozen import Evaluation
from pipelines.evaluation.rates import metrics, run_id
from pipelines.evaluation.results import results
from pipelines.report import plots, sheets
from pipelines.report.headline import headline
from pipelines.report.tables import tables


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    put(made, faces())
    return made


@pytest.fixture(scope="module")
def found():
    """What two kinds of templates gave, beside demographic groups and a face without embedding."""
    made = MemoryStore()
    put(made, [*faces()[:-1], None])
    return evaluated(evaluation(made, protocols=("first:1", "first:2"), groups=("sex",)), made)


class TestComparisons:
    @pytest.mark.parametrize(
        ("protocol", "templates", "genuine", "impostor"),
        [
            ("first:1", PEOPLE, PEOPLE * (EACH - 1), PEOPLE * (PEOPLE - 1) * (EACH - 1)),
            ("first:2", PEOPLE, PEOPLE * (EACH - 2), PEOPLE * (PEOPLE - 1) * (EACH - 2)),
            (
                "all",
                PEOPLE * EACH,
                PEOPLE * math.comb(EACH, 2),
                math.comb(PEOPLE * EACH, 2) - PEOPLE * math.comb(EACH, 2),
            ),
        ],
    )
    def test_each_is_made_once(self, store, protocol, templates, genuine, impostor):
        (case,) = evaluated(evaluation(store, protocols=(protocol,)), store).cases
        assert (case.templates, case.genuine, case.impostor) == (templates, genuine, impostor)
        assert case.scores.genuine.sum() == genuine
        assert case.scores.impostor.sum() == impostor
        assert case.lost == 0

    def test_faces_of_one_person_are_recognised(self):
        store = MemoryStore()
        put(store, faces(noise=0.01))
        (case,) = evaluated(evaluation(store), store).cases
        assert [row.fnmr.errors for row in case.cosine] == [0] * len(case.cosine)
        assert [row.fnmr.errors for row in case.protected] == [0] * len(case.protected)
        assert {row.fmr.trials for row in case.protected} == {case.impostor}

    def test_what_is_left_out_is_compared_with_nobody(self, store):
        found = evaluated(evaluation(store, excluded=("s00", "s01/3.jpg")), store)
        assert (found.subjects, found.excluded) == (PEOPLE - 1, EACH + 1)
        assert found.faces == PEOPLE * EACH - EACH - 1

    def test_who_has_no_second_face_is_no_genuine_comparison(self, store):
        with pytest.raises(ProtocolError):
            evaluated(evaluation(store, protocols=("first:3",)), store)

    def test_of_no_faces_nothing_can_be_said(self):
        store = MemoryStore()
        put(store, [None] * 4)
        with pytest.raises(SourceError):
            evaluated(evaluation(store), store)


class TestBlocks:
    def test_in_another_order_the_numbers_are_the_same(self, store):
        asked = evaluation(store, protocols=("first:1", "first:2"))
        first = tables(evaluated(asked, store))
        other = MemoryStore()
        put(other, faces())
        count = len(blocks.plan(asked, Sources(store)).blocks)
        again = tables(evaluated(asked, other, reversed(range(count))))
        assert first.keys() == again.keys()
        assert all(first[name].equals(again[name]) for name in first)

    def test_one_is_done_once_its_counts_are_there(self, store):
        asked, sources = evaluation(store), Sources(store)
        assert blocks.done(asked, store) == set()
        blocks.run(asked, sources, 1)
        assert blocks.done(asked, store) == {1}
        store.delete(["/memory/out/blocks/000001.counts.parquet"])
        assert blocks.done(asked, store) == set()

    def test_a_damaged_one_is_named(self, store):
        asked, sources = evaluation(store), Sources(store)
        evaluated(asked, store)
        store.write("/memory/out/blocks/000002.counts.parquet", b"PAR1")
        with pytest.raises(StorageError, match=r"000002\.counts\.parquet is damaged: remove it"):
            results(asked, sources)

    def test_a_missing_one_is_no_result(self, store):
        asked = evaluation(store)
        evaluated(asked, store)
        store.delete(["/memory/out/blocks/000000.matches.parquet"])
        with pytest.raises(FileNotFoundError):
            results(asked, Sources(store))

    def test_no_block_holds_an_embedding(self, store):
        evaluated(evaluation(store), store)
        content = b"".join(store.read(one.uri) for one in store.entries("/memory/out"))
        assert not any(vector.tobytes()[:16] in content for vector in faces())


def test_it_is_read_as_it_was_frozen(store):
    asked = evaluation(store, excluded=("a",), groups=("sex",), listed="x\ty\n")
    assert Evaluation.from_json(asked.to_json()) == asked
    assert asked.seed not in repr(asked)


class TestRates:
    def test_every_rate_is_a_row_of_its_own(self, found):
        rows = list(metrics(found))
        names = [(row["label"], row["name"]) for row in rows]
        assert len(set(names)) == len(names)
        assert {row["run_id"] for row in rows} == {run_id(found)}
        for row in rows:
            assert row["value"] == row["numerator"] / row["denominator"]
            assert 0 <= row["low"] <= row["high"] <= 1
        labels = "\n".join(label for label, _ in names)
        assert f"first:1: N{WIDTH} alpha8" in labels
        assert "first:2, mean: cosine FMR 0.01" in labels
        assert "sex f" in labels

    def test_where_results_go_is_no_part_of_its_name(self, store):
        first = evaluated(evaluation(store), store)
        moved = evaluated(evaluation(store, out="/memory/elsewhere"), store)
        other = evaluated(evaluation(store, tolerance=0), store)
        assert run_id(first) == run_id(moved) != run_id(other)

    def test_a_face_that_was_not_acquired_is_folded(self, found):
        assert found.failures.reasons == {"no_embedding": 1}
        assert found.failures.fta == 1 / (PEOPLE * EACH)
        assert found.failures.fte == 0


class TestReport:
    def test_its_tables_are_of_the_same_bytes_each_time(self, found):
        first, again = tables(found), tables(found)
        assert all(first[name].equals(again[name]) for name in first)
        assert {"recogniser", "protected", "scores", "groups", "failures", "metrics"} <= set(first)

    def test_the_sentence_singles_out_what_was_asked_for(self, found):
        text = headline(found)
        assert text.startswith(f"Templates first:1: N{WIDTH} alpha8")
        assert "as asked for" in text
        assert "unsupported" in text

    def test_of_several_settings_none_is_singled_out(self, store):
        many = evaluated(evaluation(store, alphas=(8, 10)), store)
        assert "none of them is singled out" in headline(many)

    def test_each_row_of_a_sheet_has_all_columns(self, found):
        made = sheets.brief(found)
        assert made
        for one in made:
            assert one.title
            assert {len(row) for row in one.rows} <= {len(one.columns)}

    def test_every_plot_is_drawn(self, found):
        made = plots.plots(found)
        assert len(made) == 6
        for title, caption, svg in made:
            assert title
            assert caption
            assert svg.startswith("<svg"), caption
