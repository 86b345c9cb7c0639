"""What a search says of itself: entropy, skips, warnings; and the skip that guards against skips."""

import pytest
import torch

from ehdnas.core.images.dataset import Split
from ehdnas.search.augment import Augmentation
from ehdnas.search.recipes import recipe_for
from ehdnas.search.searcher import Searcher, SearchTask
from ehdnas.search.signs import draws, summary, warnings_of
from ehdnas.search.spaces.base import Architecture, NetworkShape
from ehdnas.search.spaces.darts.genotype import CHOICES, EDGES_PER_CELL
from ehdnas.search.spaces.darts.network import Cell
from ehdnas.search.spaces.darts.space import DartsSpace
from ehdnas.search.spaces.nasbench201.space import NasBench201Space

SPACE, SHAPE = DartsSpace(), NetworkShape(2, 3, (3, 8, 8), 4)
SKIP = CHOICES.index("skip_connect")
LEARNT = {"accuracy": [0.1, 0.2]}
DECIDED = [{"entropy": 1.9}, {"entropy": 0.7, "skips": 1}]
UNLEARNT = {"accuracy": [0.1, 0.2]}
UNDECIDED = [{"entropy": 1.9}, {"entropy": 1.72, "skips": 7}]


def with_skips(count):
    """Return DARTS_V2 with so many skips in the normal cell."""
    choices = list(SPACE.reference.choices)
    used = [slot for slot in range(EDGES_PER_CELL) if choices[slot]]
    for place, slot in enumerate(used):
        choices[slot] = SKIP if place < count else 4
    return Architecture(tuple(choices))


@pytest.mark.parametrize("count", [0, 3, 4, 8])
def test_more_than_three_skips_in_a_cell_are_warned_of(count):
    network = with_skips(count)
    assert SPACE.identities(network)[0] == count
    warnings = warnings_of(SPACE, network, LEARNT)
    assert len(warnings) == (count > 3)
    assert all(f"has {count} skips in a cell" in text and "\n" not in text for text in warnings)


def test_a_search_whose_draws_are_no_better_than_random_ones_is_warned_of():
    (warning,) = warnings_of(SPACE, SPACE.reference, {"accuracy": [0.1, -0.1, 0.02], "fit": [-0.2, 0.0, 0.0]})
    assert "no better than ones drawn at random (accuracy +0.007, fit -0.067)" in warning
    assert warnings_of(SPACE, SPACE.reference, {"accuracy": [0.1, -0.1, 0.02], "fit": [0.2, 0.1, 0.2]}) == []
    assert len(warnings_of(SPACE, SPACE.reference, {"accuracy": [0.0] * 3})) == 1


def test_draws_differ_from_random_ones_by_what_was_learnt_alone():
    nothing = SPACE.initial_logits()
    ours, theirs = draws(SPACE, nothing, 3)
    assert ours == theirs and len(set(ours)) == len(ours)
    learnt = nothing.clone()
    learnt[:, SKIP] += 9
    ours, theirs = draws(SPACE, learnt, 3)
    assert theirs == draws(SPACE, nothing, 3)[0]
    skips = [sum(map(sum, map(SPACE.identities, drawn))) for drawn in (ours, theirs)]
    assert skips[0] > skips[1]


def test_the_summary_says_how_decided_it_is():
    assert summary(UNDECIDED) == "entropy 1.90 → 1.72 nats a decision, 7 skips in a cell at most"
    assert summary(DECIDED[:1]) == "entropy 1.90 → 1.90 nats a decision"


def test_skips_that_nothing_depends_on_are_not_counted():
    space = NasBench201Space()
    assert space.identities(space.parse("|none~0|+|nor_conv_3x3~0|skip_connect~1|+|none~0|none~1|"
                                        "skip_connect~2|")) == (1,)  # fmt: skip


@pytest.mark.parametrize("reduction", [False, True])
def test_the_skip_beside_adds_what_enters_an_edge_that_keeps_the_resolution(reduction):
    torch.manual_seed(0)
    every = {edge: tuple(range(1, len(CHOICES))) for edge in range(EDGES_PER_CELL)}
    cell = Cell(every, (4, 4), 2, reduction, reduced_before=False, searching=True)
    choices = SPACE.reference.choices[:EDGES_PER_CELL]
    s0, s1 = torch.randn(2, 3, 4, 8, 8)
    plain = cell(s0, s1, choices, None, 0.0)
    beside = cell(s0, s1, choices, None, 0.0, 0.5)
    added = 0.0 if reduction else 0.5 * (cell.preprocess0(s0) + cell.preprocess1(s1))
    torch.testing.assert_close(beside[:, :2], plain[:, :2] + added)  # the first node takes both inputs
    assert torch.equal(cell(s0, s1, choices, None, 0.0, 0.0), plain)


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_a_search_has_the_recipe_s_skip_beside_and_records_what_it_decided(weight, tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
    split = Split(images, torch.arange(16).remainder(4).numpy())
    recipe = recipe_for("cifar10").model_copy(
        update={"search_epochs": 2, "batch_size": 8, "skip_beside": weight}
    )
    augmentation = Augmentation.for_size(8, True, (0.5,) * 3, (0.25,) * 3)
    task = SearchTask(SPACE, SHAPE, split, split, augmentation, recipe, [None], 0, 1e9, {})
    shown = []
    result = Searcher(task, tmp_path / "checkpoint").run(lambda done, total, text: shown.append(text))
    assert result.supernet.skip_beside == weight
    assert [set(record) >= {"entropy", "skips"} for record in result.history] == [True, True]
    assert result.history[-1]["entropy"] == SPACE.entropy(result.logits)
    assert result.history[-1]["skips"] == max(SPACE.identities(SPACE.most_likely(result.logits)))
    assert shown[-1].endswith(f"skips {result.history[-1]['skips']}")
