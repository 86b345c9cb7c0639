"""The mobile supernet: it is every network of the space, and its gates' gradients reach what they should."""

import pytest
import torch
from mobile_networks import SMALL, SPACE, changed, depths, sampled

from ehdnas.search.spaces.mobile.layout import NARROW, SKIP, STAGES, WIDE
from ehdnas.search.spaces.mobile.shared import SharedLayer


def with_shared_weights(supernet, architecture, shape):
    """The final network of an architecture with the supernet's weights: the first, and of their middle."""
    network = SPACE.network(architecture, shape)
    have = supernet.state_dict()
    for name, own in network.state_dict().items():
        own.copy_(_slice(have.get(_shared_name(name, architecture), own), own.shape))
    return network


def _shared_name(name, architecture):
    *path, leaf = name.split(".")
    if "squeeze" in path:
        stage, layer = STAGES[int(path[1])], int(path[3])
        expansion = architecture.choices[stage.layer_slots[layer]] // 3
        path.insert(path.index("squeeze") + 1, str(expansion))
    return ".".join([*path, leaf])


def _slice(value, shape):
    for axis, (size, wanted) in enumerate(zip(value.shape, shape, strict=True)):
        start = (size - wanted) // 2 if axis >= 2 else 0
        value = value.narrow(axis, start, wanted)
    return value


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2, "narrow", "wide"])
def test_the_supernet_computes_the_network_its_gates_select(seed, training):
    torch.manual_seed(0)
    supernet = SPACE.supernet(SMALL)
    with torch.no_grad():
        for _ in range(5):  # statistics of their own for every batch norm
            supernet(torch.randn(8, *SMALL.image), SPACE.encode(sampled(7)))
        for name, buffer in supernet.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
    architecture = sampled(seed) if isinstance(seed, int) else SPACE.reference
    if isinstance(seed, str):
        width = NARROW if seed == "narrow" else WIDE
        architecture = changed(
            architecture,
            **{f"s{s.width_slot}": width for s in STAGES},
            **{f"s{s.squeeze_slot}": 1 for s in STAGES},
        )
    network = with_shared_weights(supernet, architecture, SMALL)
    images = torch.randn(4, *SMALL.image)
    supernet.train(training), network.train(training)
    with torch.no_grad():
        ours, theirs = supernet(images, SPACE.encode(architecture)), network(images)
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_gradients_leave_the_value_as_it_is():
    torch.manual_seed(0)
    supernet, images = SPACE.supernet(SMALL), torch.randn(4, *SMALL.image)
    gates = SPACE.encode(sampled(3))
    plain = supernet(images, gates)
    assert torch.allclose(supernet(images, gates.requires_grad_()), plain, atol=1e-5)


def test_only_the_path_is_computed_where_no_gradient_is_asked_for(monkeypatch):
    supernet, calls = SPACE.supernet(SMALL), []
    inner = SharedLayer.inner
    monkeypatch.setattr(SharedLayer, "inner", lambda self, *a: calls.append(0) or inner(self, *a))
    architecture, images = sampled(3), torch.randn(2, *SMALL.image)
    supernet(images, SPACE.encode(architecture))
    assert len(calls) == sum(depths(architecture))
    with torch.no_grad():
        supernet(images, SPACE.encode(architecture).requires_grad_())
    assert len(calls) == 2 * sum(depths(architecture))


def test_gradients_reach_every_choice_that_can_be_made_next():
    """In the mean over draws: all operations up to the first layer skipped, all widths, both squeezes."""
    torch.manual_seed(0)
    supernet, architecture = SPACE.supernet(SMALL), SPACE.reference
    images, total = torch.randn(4, *SMALL.image), torch.zeros(33, 7)
    for _ in range(40):
        gates = SPACE.encode(architecture).requires_grad_()
        supernet(images, gates).square().sum().backward()
        total += gates.grad.abs()

    def untaken(slot, count):
        # What is taken may have no gradient: batch norm takes out the scale of a stage with one layer.
        return total[slot, [choice for choice in range(count) if choice != architecture.choices[slot]]]

    for stage, depth in zip(STAGES, depths(architecture), strict=True):
        assert untaken(stage.width_slot, 3).all() and untaken(stage.squeeze_slot, 2).all()
        for layer, slot in enumerate(stage.layer_slots):
            assert bool(untaken(slot, SKIP).all()) == (layer <= depth)
    assert not total[:, SKIP].any(), "a layer that is skipped adds nothing"


@pytest.mark.parametrize("seed", range(3))
def test_a_search_step_moves_every_slot_that_counts(seed):
    torch.manual_seed(seed)
    logits = SPACE.initial_logits().requires_grad_()
    gates = SPACE.relax(logits)
    SPACE.supernet(SMALL)(torch.randn(4, *SMALL.image), gates).square().sum().backward()
    drawn = SPACE.decode(gates.detach())
    for stage, depth in zip(STAGES, depths(drawn), strict=True):
        for slot in (stage.width_slot, stage.squeeze_slot, *stage.layer_slots[: depth + 1]):
            assert logits.grad[slot].any()


def test_the_gradient_by_widths_is_that_of_the_masks():
    """By finite differences of each gate of a stage's width."""
    torch.manual_seed(0)
    supernet = SPACE.supernet(SMALL).double()
    images, slot = torch.randn(2, *SMALL.image).double(), STAGES[2].width_slot
    gates = SPACE.encode(SPACE.reference).double().requires_grad_()
    (gradient,) = torch.autograd.grad(supernet(images, gates).square().sum(), gates)
    with torch.no_grad():
        for width in range(3):
            step = torch.zeros(33, 7).double()
            step[slot, width] = 1e-6
            ahead, behind = (supernet(images, gates + sign * step).square().sum() for sign in (1, -1))
            assert float(gradient[slot, width]) == pytest.approx(
                float((ahead - behind) / 2e-6), rel=1e-4, abs=1e-6
            )
