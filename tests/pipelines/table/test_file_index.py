"""Which files may hold a subject: found by binary search, as a look at each file would."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ports import DataFile
from pipelines.table import file_index
from pipelines.table.file_index import FileIndex
from pipelines.table.list_digest import digest_of_columns
from pipelines.table.listing import Listing, digest_of, line

TEXTS = st.text(st.sampled_from('ab"\\\n\x7f\u00e9\U0001f600, '), max_size=4)
FACTS = st.dictionaries(st.sampled_from(["subject_id", 'o"dd', "z"]), TEXTS, max_size=3)
LETTERS = "abcdefghij"


@st.composite
def files(draw, most: int = 30) -> list[DataFile]:
    """Files with ranges of letters; some with half a range, or none."""
    found = []
    for number in range(draw(st.integers(0, most))):
        low, high = sorted(draw(st.tuples(st.sampled_from(LETTERS), st.sampled_from(LETTERS))))
        known = draw(st.sampled_from(["both", "both", "both", "low", "none"]))
        lows = {"subject_id": low} if known != "none" else {}
        highs = {"subject_id": high} if known == "both" else {}
        path = f"{draw(st.integers(0, 9))}-{number}"
        found.append(DataFile(path, number, 1, "", {"generation": "1"}, lows, highs))
    return found


def may_hold(file: DataFile, subject: str) -> bool:
    low, high = file.low.get("subject_id"), file.high.get("subject_id")
    return low is None or high is None or low <= subject <= high


def assert_found(index: FileIndex, left: list[DataFile]) -> None:
    paths = sorted(file.path for file in left)
    assert [file.path for file in index.listing] == paths
    assert len(index) == len(paths)
    for subject in [*LETTERS, "", "zz"]:
        wanted = sorted(file.path for file in left if may_hold(file, subject))
        assert [file.path for file in index.holding([subject])] == wanted
    some = ["c", "f"]
    wanted = sorted(f.path for f in left if any(may_hold(f, one) for one in some))
    assert [file.path for file in index.holding(some)] == wanted


class TestHolding:
    @settings(max_examples=25)
    @given(files())
    def test_as_a_look_at_each_file_would_say(self, listed):
        assert_found(FileIndex.of(listed), listed)

    def test_many_people_at_once(self, monkeypatch):
        monkeypatch.setattr(file_index, "_FEW", 1)
        listed = [DataFile(x, 1, 1, "", {}, {"subject_id": x}, {"subject_id": x}) for x in "cab"]
        found = FileIndex.of(listed).holding(["a", "c", "x"])
        assert [file.path for file in found] == ["a", "c"]


class TestChanged:
    @settings(max_examples=20)
    @pytest.mark.parametrize("most", [0, 512], ids=["taken in", "kept beside"])
    @given(st.lists(files(4), min_size=1, max_size=6), st.randoms())
    def test_as_if_it_were_made_of_what_is_left(self, most, commits, random):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(file_index, "_RECENT", most)
            index, left = FileIndex.of(commits[0]), {file.path: file for file in commits[0]}
            for added in commits[1:]:
                removed = [path for path in left if random.random() < 0.3]
                before = sorted(left)
                earlier = index
                index = index.changed(added, removed)
                assert [file.path for file in earlier.listing] == before
                left = {path: file for path, file in left.items() if path not in removed}
                left |= {file.path: file for file in added}
            assert_found(index, list(left.values()))

    def test_a_commit_shares_what_was_there(self):
        """A commit of one file takes no memory that follows the table."""
        listed = [
            DataFile(f"{n:06d}", 1, 1, "", {}, {"subject_id": f"{n}"}, {"subject_id": f"{n}"})
            for n in range(20_000)
        ]
        index = FileIndex.of(listed)
        tracemalloc.start()
        later = [index := index.changed([listed[0]], [f"{n:06d}"]) for n in range(3)]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(later[-1]) == 20_000 - 2
        assert peak < 20_000


class TestDigest:
    @settings(max_examples=40)
    @given(
        st.lists(
            st.builds(
                DataFile,
                TEXTS,
                st.integers(0, 9),
                st.integers(0, 9),
                st.just(""),
                FACTS,
                FACTS,
                FACTS,
            ),
            max_size=8,
            unique_by=lambda f: f.path,
        )
    )
    def test_it_is_that_of_the_lines(self, listed):
        found = Listing.of(listed)
        assert digest_of_columns(found.columns) == digest_of(map(line, listed))
