"""The list of a destroyed generation's files: authenticated for one generation, or not at all."""

from __future__ import annotations

import pytest
from support.memory_keys import MemoryKeyring

from pipelines.table import destroyed_list as lists

SHA = "ab" * 32
PATH = f"generation=3/part-0123456789ab-000000-{'0f' * 8}-{SHA}.parquet"
FILES = {PATH: 10}
LISTED = f"10 {SHA} {PATH}\n".encode()


@pytest.fixture(scope="module")
def keys():
    return MemoryKeyring("table").table()


def test_a_line_a_file_in_the_order_of_paths():
    other = PATH.replace("000000", "000001")
    lines = lists.of_files({other: 7, PATH: 10}).decode().splitlines()
    assert lines == [f"10 {SHA} {PATH}", f"7 {SHA} {other}"]
    assert lists.of_files({}) == b""


@pytest.mark.parametrize("listed", [b"", LISTED])
def test_what_is_authenticated_is_authentic(keys, listed):
    stored = lists.authenticated(listed, 3, keys)
    assert lists.has_mac(stored)
    assert lists.without_mac(stored) == listed
    assert lists.is_authentic(stored, 3, keys)


def test_not_for_another_generation_other_keys_or_none(keys):
    stored = lists.authenticated(LISTED, 3, keys)
    assert not lists.is_authentic(stored, 30, keys)
    assert not lists.is_authentic(stored, 3, MemoryKeyring("table").table())
    assert not lists.is_authentic(stored, 3, None)


def test_no_byte_can_be_changed(keys):
    stored = lists.authenticated(LISTED, 3, keys)
    for at in range(len(stored)):
        changed = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
        assert not lists.is_authentic(changed, 3, keys)


@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + b"\n", lambda s: s + s])
def test_nothing_may_stand_behind_the_mac(keys, change):
    stored = lists.authenticated(LISTED, 3, keys)
    assert not lists.is_authentic(change(stored), 3, keys)


def test_a_list_of_before_has_none(keys):
    assert not lists.has_mac(LISTED)
    assert lists.without_mac(LISTED) == LISTED
    assert not lists.is_authentic(LISTED, 3, keys)


def test_lists_that_can_be():
    assert lists.is_well_formed(b"", 3)
    assert lists.is_well_formed(LISTED, 3)
    assert lists.is_well_formed(LISTED * 2, 3)


@pytest.mark.parametrize(
    "listed",
    [
        LISTED[:-1],
        b"\n",
        LISTED + b"\n",
        LISTED.replace(b"generation=3", b"generation=4"),
        LISTED.replace(b"generation=3/", b""),
        LISTED.replace(b"10 ", b"010 "),
        LISTED.replace(b"10 ", b"-1 "),
        LISTED.replace(b"10 ", b"1" * 19 + b" "),
        LISTED.replace(f"10 {SHA}".encode(), f"10 {'cd' * 32}".encode()),
        LISTED.replace(b"generation=3/", b"generation=3/ "),
        f"10 {SHA} generation=3/../../etc/passwd\n".encode(),
        LISTED.replace(b"part-", b"p\xc3\xa4rt-"),
        b"\xff\xfe",
        b"10\n",
    ],
)
def test_lists_that_cannot_be(listed):
    assert not lists.is_well_formed(listed, 3)
