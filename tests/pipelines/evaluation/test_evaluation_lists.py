"""Lists of pairs, roles and names, as other programs write them."""

from __future__ import annotations

import pytest

from ironmask.errors import ProtocolError, SourceError
from pipelines.plan import lists
from pipelines.plan.lists import Pair, Role

GENUINE = Pair(1, ("Ann Lee", "1"), ("Ann Lee", "12"), genuine=True, is_comment=False)
IMPOSTOR = Pair(2, ("Ann Lee", "1"), ("Bob", "3"), genuine=False, is_comment=False)


def read(data: bytes) -> list[Pair]:
    return list(lists.pairs("pairs", lists.decoded("pairs", data)))


@pytest.mark.parametrize(
    "text",
    [
        "Ann Lee\t1\t12\nAnn Lee\t1\tBob\t3",
        "Ann Lee\t0001\t0012\t\nAnn Lee\t01\tBob\t03\n",
        "Ann Lee,1,12,\nAnn Lee,1,Bob,3\n",
        '"Ann Lee", 1, 12\n"Ann Lee", 1, "Bob", 3\n',
        "Ann Lee;1;12\nAnn Lee;1;Bob;3\n",
        '"Ann Lee" 1 12\n"Ann Lee" 1  Bob 3\n',
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_dialect_says_the_same(text, end, mark):
    assert read(mark + text.replace("\n", end).encode()) == [GENUINE, IMPOSTOR]


@pytest.mark.parametrize("top", ["10\t300", "300", "name,imagenum1,imagenum2,", "Name;image;image"])
def test_a_first_line_that_is_no_pair(top):
    """Counts as LFW has them, or names of columns; nowhere else."""
    (pair,) = read(f"\n# said by somebody\n\n{top}\n \nAnn\t1\t2\n,,,\n".encode())
    assert (pair.line, pair.first) == (6, ("Ann", "1"))
    with pytest.raises(ProtocolError, match="line 2"):
        read(f"Ann\t1\t2\n{top}\n".encode())


def test_a_subject_whose_name_is_a_number_is_no_count():
    assert [pair.first for pair in read(b"17 1 2\n17 2 3\n")] == [("17", "1"), ("17", "2")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Ann 1 1", "compared with itself"),
        ("Ann 1 Ann 01", "compared with itself"),
        ("Ann Lee 1 2", "image numbers"),
        ("Ann one two", "image numbers"),
        ("Ann -1 2", "image numbers"),
        ("Ann 1_0 2", "image numbers"),
        ('"Ann\t1\t2', "image numbers"),
        ("Ann\t\t1\t2", "image numbers"),
    ],
)
def test_a_line_that_is_no_pair_is_named(line, says):
    with pytest.raises(ProtocolError, match=rf"pairs, line 2: .*{says}"):
        read(f"Ann 1 2\n{line}\n".encode())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("Ann\t1\t2\n".encode("utf-16"), "UTF-16"),
        ("Ann\t1\t2\n".encode("utf-16-be"), "NUL"),
        ("Ann\t1\t2\nJos\xe9\t1\t2\n".encode("latin-1"), "line 2"),
    ],
)
def test_other_text_than_utf8_is_refused_in_any_locale(data, says, monkeypatch):
    monkeypatch.setenv("LC_ALL", "en_US.ISO-8859-1")
    with pytest.raises(SourceError, match=says):
        lists.decoded("pairs", data)


@pytest.mark.parametrize(
    ("image", "called"),
    [
        ("Ann/Ann_0012.jpg", ("Ann", "12")),
        ("a\\b\\Ann_12.JPG", ("Ann", "12")),
        ("St.Ann_0001", ("St.Ann", "1")),
        ("J.R._Ewing_0000.png", ("J.R._Ewing", "0")),
        ("Ann_0001.crop.png", ("Ann", "1")),
        ("Ann.jpg", None),
        ("Ann/0001.jpg", None),
    ],
)
def test_what_an_image_is_called_in_a_list(image, called):
    assert lists.numbered(image) == called


def test_names_hold_any_sign_and_a_comment_has_a_line_of_its_own():
    text = '# wrong labels\r\nAnn photo #3.jpg\r\n\r\n  Bob, "B" # 2  \r\n"#4.jpg"\r\n" c ""d"""\r'
    assert lists.names(text) == [' c "d"', "#4.jpg", "Ann photo #3.jpg", 'Bob, "B" # 2']
    assert lists.comments(text) == [(1, "# wrong labels")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_roles_in_any_dialect(delimiter):
    lines = ["\ufeff# mine", '"Image",Role , template', "", '"#1, x.jpg",enrol,a', "2.jpg,probe"]
    text = "\r\n".join([*lines, ",,"]).replace(",", delimiter).replace(f"#1{delimiter}", "#1,")
    found = list(lists.roles("roles", lists.decoded("roles", text.encode())))
    assert found == [
        Role(4, "#1, x.jpg", is_probe=False, template="a", is_comment=False),
        Role(5, "2.jpg", is_probe=True, template="", is_comment=False),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,role\na, b.jpg,probe", "line 2: it has other cells"),
        ('image,role\n"a.jpg,probe', "line 2: it has other cells"),
        ("image,role,image\na.jpg,probe,b.jpg", "line 1: a column is named twice"),
        ("image,role\na.jpg", "line 2: role None"),
    ],
)
def test_a_line_that_is_no_role_is_named(text, says):
    with pytest.raises(ProtocolError, match=says):
        list(lists.roles("roles", text))
