"""Genotypes: every form reads back, and every wrong one is refused in one line that says why."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehdnas.core.errors import UsageError
from ehdnas.search.spaces.darts import genotype as g
from ehdnas.search.spaces.darts.space import DartsSpace

SPACE = DartsSpace()
V2 = g.parse("DARTS_V2")


@st.composite
def architectures(draw):
    choices = [0] * g.SLOTS
    for offset in (0, g.EDGES_PER_CELL):
        for node in range(g.NODES):
            edges = list(g.edges_of(node))
            pair = draw(st.permutations(edges))[:2]
            for edge in pair:
                choices[offset + edge] = draw(st.integers(1, 7))
    return tuple(choices)


@given(architectures())
def test_every_form_reads_back(choices):
    g.check(choices)
    assert g.parse("".join(map(str, choices))) == choices
    assert g.parse(json.dumps(g.to_cells(choices))) == choices
    assert g.parse(g.to_literal(choices)) == choices


@given(st.text(max_size=200) | st.from_regex(r"Genotype\(.{0,80}\)") | st.from_regex(r"\{.{0,80}\}"))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        g.check(g.parse(text))
    except UsageError as error:
        assert "\n" not in str(error)


@given(st.lists(st.integers(0, 9), min_size=28, max_size=28))
def test_digits_are_valid_exactly_when_the_space_says_so(digits):
    text = "".join(map(str, digits))
    try:
        parsed = SPACE.parse(text)
    except UsageError:
        with pytest.raises(UsageError):
            g.check(tuple(digits))
    else:
        assert SPACE.is_valid(parsed)
        assert parsed.choices == tuple(digits)


def test_published_genotypes_are_valid_and_say_their_source():
    assert set(g.published()) >= {"DARTS_V1", "DARTS_V2", "SNAS_MILD", "EHDNAS_GENERIC", "EHDNAS_PIPELINE"}
    for name, entry in g.published().items():
        g.check(g.parse(name))
        assert entry["source"]


def test_the_literal_as_the_darts_authors_print_it():
    text = (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
        "('dil_conv_3x3', 2)], "
        "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
        "('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
    )
    assert g.parse(text) == V2


REST = g.to_cells(V2)["normal"][1:]


def _cells(**changes):
    return json.dumps({**g.to_cells(V2), **changes})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (_cells(normal=[["conv_9x9", 0], *REST]), "unknown operation 'conv_9x9'"),
        (
            _cells(normal=[["sep_conv_3x3", 2], *REST]),
            "node 0 of the normal cell takes input 2",
        ),
        (_cells(reduce=g.to_cells(V2)["reduce"][:7]), "the reduce cell has 7 edges; it needs 8"),
        (
            _cells(normal=[["sep_conv_3x3", 1], ["sep_conv_3x3", 1], *REST[1:]]),
            "input 1 twice",
        ),
        (_cells(normal=[["sep_conv_3x3", True], *REST]), "takes input True"),
        (_cells(normal=[["none", 0], *REST]), "unknown operation 'none'"),
        (_cells(normal_concat=[2, 3]), "normal_concat must be the four nodes"),
        ("12345", "5 digits"),
        ("0" * 28, "takes 0 edges; it needs 2"),
        ("9" * 28, "choices go from 0 to 7"),
        ("DARTS_V3", "did you mean"),
        ("Genotype(normal=__import__('os').system('true'))", "is not a plain value"),
        ("Genotype(normal=[('skip_connect', 0)] * 10**9)", "is not a plain value"),
        ("Genotype(", "does not parse"),
        ("{", "not valid JSON"),
        ("[" * 5000, "is not a DARTS genotype"),
        ('{"normal": ' + "[" * 15000, "not valid JSON"),
        ("1" * 100_000, "at most"),
    ],
)
def test_a_wrong_genotype_is_refused_with_what_is_wrong(text, says):
    with pytest.raises(UsageError) as error:
        g.parse(text)
    assert says in str(error.value)
