"""Spaces given by their slots' options, by the example of one's own: what is read, refused, left out."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ehdnas.core.errors import UsageError
from ehdnas.search.spaces.base import Architecture

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_space" / "my_space.py"


def example():
    spec = importlib.util.spec_from_file_location("my_space_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ResidualSpace()


SPACE = example()


def test_forms_of_a_genotype():
    one = Architecture((0, 1, 2, 3, 4, 0))
    assert SPACE.text(one) == "012340"
    assert SPACE.genotype(one)["choices"][1] == "nor_conv_3x3"
    assert SPACE.parse(" 012340 ") == SPACE.parse(json.dumps(SPACE.genotype(one))) == one


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("01234", "is not a genotype of space 'residual'; give 6 digits or"),
        ("012345", "choice 5 in slot 5; its choices go from 0 to 4"),
        ("²" * 6, "is not a genotype"),
        ('{"choices": ["nor_conv_1x1"]}', "1 choices: space 'residual' has 6 slots"),
        ('{"choices": 3}', "0 choices"),
        (
            '{"choices": ["nor_conv_1x2", 1, 1, 1, 1, 1]}',
            "'nor_conv_1x2' in slot 0; did you mean 'nor_conv_1x1'",
        ),
        ('{"choices": [', "not valid JSON"),
        ("0" * 20_001, "at most 20000 make sense"),
    ],
)
def test_what_is_no_genotype_is_refused_by_name(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        SPACE.parse(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200) | st.from_regex(r"\{.{0,80}\}"))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        assert SPACE.is_valid(SPACE.parse(text))
    except UsageError as error:
        assert "\n" not in str(error)


def test_probabilities_are_the_product_of_the_slots():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    one = Architecture((0, 1, 2, 3, 4, 0))
    expected = sum(logits.log_softmax(1)[at] for at in enumerate(one.choices))
    assert SPACE.log_prob(one, logits) == pytest.approx(float(expected))
    assert SPACE.most_likely(logits).choices == tuple(logits.argmax(1).tolist())
    assert SPACE.log_prob(Architecture((9,) * 6), logits) == -torch.inf
    assert len(list(SPACE.neighbours(one))) == 6 * 4


def test_leaving_out_more_leaves_out_what_was_before():
    fewer = SPACE.without(frozenset({"nor_conv_1x1"})).without(frozenset({"avg_pool_3x3"}))
    assert not fewer.allows(SPACE.parse("000000")) and not fewer.allows(SPACE.parse("444444"))
    assert fewer.allows(SPACE.parse("123123"))
    assert fewer.parse("000000") == SPACE.parse("000000"), "what is left out can still be read"
    with pytest.raises(UsageError, match=r"slot 0 has only nor_conv_1x1, .*; leave one of them"):
        SPACE.without(frozenset(SPACE.options[0]))
