"""What a helper's ciphertext is bound to, in rows of both versions of the scheme."""

from __future__ import annotations

from hashlib import sha256

import pytest
from support.destinations import WIDTH, enrolled

from ironmask.errors import TableError, TamperedError
from ironmask.params import Params
from pipelines.table.row_cipher import associated_data, encrypted_helper, open_row, stated

VERSIONS = {
    1: Params(WIDTH, 12, 1, version=1),
    2: Params(WIDTH, 12, 1, 2 * WIDTH, "quaternionic"),
}
LATER = ("code_width", "structure", "conditioner", "own_secret")
CHANGES = {
    "scheme_version": 7,
    "n": WIDTH + 4,
    "alpha": 13,
    "tolerance": 2,
    "code_width": 3 * WIDTH,
    "structure": "real",
    "conditioner": "of somebody",
    "own_secret": True,
}

# A row of each version, and what its helper's ciphertext is bound to: each text after its length,
# four bytes, the least first.
STORED = {
    "template_id": "t-1",
    "subject_id": "Ann",
    "generation": 3,
    "n": 512,
    "alpha": 16,
    "tolerance": 2,
    "encoding": "int8.1",
    "model": "m:9",
    "digests": b"tags",
}
DIGEST = sha256(STORED["digests"]).hexdigest().encode()
BOUND = {
    1: (
        {"scheme_version": 1},
        b"\x0f\0\0\0ironmask row v1" b"\x05\0\0\0table" b"\x03\0\0\0t-1" b"\x03\0\0\0Ann"
        b"\x01\0\0\x003" b"\x01\0\0\x001" b"\x03\0\0\x00512" b"\x02\0\0\x0016" b"\x01\0\0\x002"
        b"\x06\0\0\0int8.1" b"\x03\0\0\0m:9" b"\x40\0\0\0" + DIGEST,
    ),
    2: (
        {
            "scheme_version": 2, "code_width": 1024, "structure": "quaternionic",
            "conditioner": None, "own_secret": False,
        },
        b"\x0f\0\0\0ironmask row v2" b"\x05\0\0\0table" b"\x03\0\0\0t-1" b"\x03\0\0\0Ann"
        b"\x01\0\0\x003" b"\x01\0\0\x002" b"\x03\0\0\x00512" b"\x02\0\0\x0016" b"\x01\0\0\x002"
        b"\x06\0\0\0int8.1" b"\x03\0\0\0m:9" b"\x40\0\0\0" + DIGEST
        + b"\x05\0\0\0=1024" b"\x0d\0\0\0=quaternionic" b"\0\0\0\0" b"\x06\0\0\0=False",
    ),
}  # fmt: skip


@pytest.fixture(params=VERSIONS)
def version(request) -> int:
    return request.param


@pytest.fixture
def row(place, version):
    dest = place.held()
    enrolled(dest, ["ann"], params=VERSIONS[version])
    (found,) = dest.tables.table("templates").rows().to_pylist()
    return found


def opened(place, row):
    return open_row(place.tables.table_id, row, place.keyring.generation(1))


@pytest.mark.parametrize("version", BOUND, indirect=True)
def test_the_bytes_that_a_row_is_bound_to_stay_as_they_are(version):
    """Others would leave every stored row unreadable."""
    own, expected = BOUND[version]
    assert associated_data("table", {**STORED, **own}) == expected


def test_it_opens_as_what_it_says(place, row, version):
    assert opened(place, row).params == VERSIONS[version]


def test_a_row_of_version_1_has_none_of_the_later_columns(row, version):
    found = {name: row[name] for name in LATER}
    if version == 1:
        assert found == dict.fromkeys(LATER)
    else:
        assert found == {
            "code_width": 2 * WIDTH, "structure": "quaternionic", "conditioner": None,
            "own_secret": False,
        }  # fmt: skip
    assert stated(VERSIONS[version]).items() <= row.items()


@pytest.mark.parametrize("name", CHANGES)
def test_no_parameter_can_be_changed(place, row, name):
    with pytest.raises(TamperedError):
        opened(place, {**row, name: CHANGES[name]})


@pytest.mark.parametrize("name", LATER)
def test_none_can_be_taken_away(place, row, version, name):
    if version == 1 or row[name] is None:
        assert opened(place, {**row, name: None}).params == VERSIONS[version]
    else:
        with pytest.raises(TamperedError, match="does not authenticate"):
            opened(place, {**row, name: None})


def test_files_of_before_lack_the_later_columns(place, row, version):
    without = {name: value for name, value in row.items() if name not in LATER}
    if version == 1:
        assert opened(place, without).params == VERSIONS[1]
    else:
        with pytest.raises(TamperedError):
            opened(place, without)


def test_a_later_release_may_have_written_an_unknown_version(place, row):
    with pytest.raises(TamperedError, match=r"a later release wrote it \(scheme version 7\)"):
        opened(place, {**row, "scheme_version": 7})


@pytest.mark.parametrize("version", [2], indirect=True)
@pytest.mark.parametrize("name", ["conditioner", "own_secret"])
def test_what_is_reserved_is_told_and_not_rejected(place, row, name):
    """An authentic row that uses it would verify nobody here."""
    keys = place.keyring.generation(1)
    plain = opened(place, row).helper
    later = {**row, name: CHANGES[name]}
    later["helper"] = encrypted_helper(place.tables.table_id, later, plain, keys)
    with pytest.raises(TableError, match=f"later release of ironmask, which uses its {name}"):
        opened(place, later)
