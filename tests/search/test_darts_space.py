"""The DARTS space: sampling covers it, samples are valid, networks have the published sizes."""

from collections import Counter

import numpy as np
import pytest
import torch

from ehdnas.core.errors import UsageError
from ehdnas.search.spaces.base import Architecture, NetworkShape
from ehdnas.search.spaces.darts.network import reductions
from ehdnas.search.spaces.darts.space import DartsSpace

SPACE = DartsSpace()
SMALL = NetworkShape(4, 3, (1, 8, 8), 10)


def test_the_sampler_covers_every_slot_and_choice():
    rng = np.random.default_rng(0)
    seen = {slot for _ in range(2000) for slot in enumerate(SPACE.sample(rng).choices)}
    # Node 0 has two candidate edges and takes both: only there can no edge be left out.
    always = {0, 1, 14, 15}
    assert seen == {(s, c) for s in range(28) for c in range(8) if c or s not in always}


def test_sampling_frequencies_match_the_distribution():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(28, 8, generator=generator)
    draws = [SPACE.decode(SPACE.relax(logits, generator)) for _ in range(4000)]
    # The first edge of each cell is always in use, so its operation follows its softmax alone.
    counts = Counter(draw.choices[0] for draw in draws)
    expected = logits[0, 1:].softmax(0)
    for choice in range(1, 8):
        assert counts[choice] / 4000 == pytest.approx(float(expected[choice - 1]), abs=0.03)
    # Node 1 takes a pair of its edges 2, 3, 4.
    pairs = Counter(tuple(e for e in (2, 3, 4) if draw.choices[e]) for draw in draws)
    keep = -logits[:, 0]
    scores = torch.stack([keep[2] + keep[3], keep[2] + keep[4], keep[3] + keep[4]]).softmax(0)
    for pair, score in zip([(2, 3), (2, 4), (3, 4)], scores.tolist(), strict=True):
        assert pairs[pair] / 4000 == pytest.approx(score, abs=0.03)


def test_the_most_likely_architecture_beats_all_its_neighbours():
    logits = torch.randn(28, 8, generator=torch.Generator().manual_seed(2))
    best = SPACE.most_likely(logits)
    score = SPACE.log_prob(best, logits)
    others = [SPACE.log_prob(one, logits) for one in SPACE.neighbours(best)]
    assert len(others) > 100
    assert all(score > other for other in others)


def test_darts_v2_has_its_published_number_of_parameters():
    """3.3 million at C=36, 20 cells (DARTS, table 1); 4.7 million for ImageNet (table 3)."""
    cifar = SPACE.network(SPACE.reference, NetworkShape(36, 20, (3, 32, 32), 10))
    imagenet = SPACE.network(SPACE.reference, NetworkShape(48, 14, (3, 224, 224), 1000, "imagenet"))
    assert sum(p.numel() for p in cifar.parameters()) / 1e6 == pytest.approx(3.35, abs=0.02)
    assert sum(p.numel() for p in imagenet.parameters()) / 1e6 == pytest.approx(4.72, abs=0.03)


def test_reductions_stand_at_a_third_and_two_thirds():
    assert reductions(8) == (2, 5)
    assert reductions(20) == (6, 13)


@pytest.mark.parametrize(
    ("image", "stem"), [((1, 8, 8), "cifar"), ((3, 32, 32), "cifar"), ((3, 64, 64), "imagenet")]
)
def test_networks_run_with_the_auxiliary_head_at_every_size(image, stem):
    shape = NetworkShape(4, 3, image, 7, stem)
    network = SPACE.network(SPACE.reference, shape, auxiliary=True)
    logits, auxiliary = network(torch.randn(2, *image))
    assert logits.shape == auxiliary.shape == (2, 7)
    assert network.eval()(torch.randn(2, *image)).shape == (2, 7)


def test_the_supernet_computes_the_network_its_gates_select():
    """With the weights copied over and the pools' norms taken out, both give the same logits."""
    torch.manual_seed(0)
    architecture = SPACE.parse("EHDNAS_LUT")
    convolutions = Architecture(tuple(6 if 0 < c < 3 else c for c in architecture.choices))
    supernet = SPACE.supernet(SMALL)
    network = SPACE.network(convolutions, SMALL)
    wanted = network.state_dict()
    have = {name.removeprefix("body."): value for name, value in supernet.state_dict().items()}
    network.load_state_dict({name: have.get(name, value) for name, value in wanted.items()})
    images = torch.randn(4, 1, 8, 8)
    assert torch.allclose(supernet(images, SPACE.encode(convolutions)), network(images), atol=1e-5)


def test_gates_receive_gradients_only_where_they_are_chosen():
    gates = SPACE.encode(SPACE.reference).requires_grad_()
    SPACE.supernet(SMALL)(torch.randn(2, 1, 8, 8), gates).square().sum().backward()
    chosen = SPACE.encode(SPACE.reference).bool()
    chosen[:, 0] = False
    assert gates.grad[~chosen].abs().max() == 0
    assert (gates.grad[chosen] != 0).float().mean() > 0.9


@pytest.mark.parametrize(
    "shape",
    [
        NetworkShape(8, 5, (1, 6, 8), 10),
        NetworkShape(7, 5, (1, 8, 8), 10),
        NetworkShape(8, 2, (1, 8, 8), 10),
        NetworkShape(48, 14, (3, 200, 200), 10, "imagenet"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(shape):
    with pytest.raises(UsageError):
        SPACE.network(SPACE.reference, shape)


def test_parts_hold_the_layers_of_the_whole_network():
    """The parts' parameters add up to the network's, for an architecture that is not the reference."""
    shape = NetworkShape(16, 8, (3, 32, 32), 10)
    architecture = SPACE.parse("GDAS_V1")
    parts = SPACE.parts(shape)
    chosen = [part for slot in enumerate(architecture.choices) for part in parts.chosen.get(slot, ())]
    total = sum(p.numel() for part in (*parts.fixed, *chosen) for p in part.module.parameters())
    assert total == sum(p.numel() for p in SPACE.network(architecture, shape).parameters())
