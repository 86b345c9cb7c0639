"""CSV files of all sorts of programs: read alike, or one line that says how to save them."""

import io

import pytest

from ehdnas.core.csv_file import csv_rows
from ehdnas.core.errors import DataError


def read(text, encoding="utf-8"):
    return list(csv_rows(io.BytesIO(text.encode(encoding)), "x.csv"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_keep_their_numbers_where_blank_ones_are_left_out(encoding):
    text = '\n arch ,"ms "\r\n\r\na,"1\n2"\n  \t \n,,\nb, 3\n\n'.replace(",,", " , ")
    assert read(text, encoding) == [(2, ["arch", "ms"]), (4, ["a", "1\n2"]), (7, ["b", " 3"])]


@pytest.mark.parametrize("text", ["", "\n", "  \n\n", " , \n"])
def test_a_file_of_nothing_has_no_rows(text):
    assert read(text) == []


@pytest.mark.parametrize(
    ("text", "encoding", "says"),
    [
        ("arch,ms\na,1\n", "utf-16", "in UTF-16; save it as UTF-8"),
        ("arch,ms\na,1\n", "utf-16-le", "save it as UTF-8"),
        ("arch,größe\na,1\n", "latin-1", "save it as UTF-8"),
        ("arch;ms\na;1\n", "utf-8", "separated by ';'; separate the columns by commas"),
        ("arch\tms\na\t1\n", "utf-8", "separated by tabs; separate the columns by commas"),
        ("arch,ms, ms\n", "utf-8", "two columns 'ms'"),
        ("arch,ms\n\na,1,2\n", "utf-8", "row 3: 3 cells where there are 2 columns"),
        ('arch,ms\n"a,1\n', "utf-8", "is no CSV file"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_what_to_do(text, encoding, says):
    with pytest.raises(DataError) as caught:
        read(text, encoding)
    assert says in str(caught.value) and str(caught.value).startswith("x.csv")
