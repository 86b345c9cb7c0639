"""How long a stage will take is said beforehand, unless a pass does not fit into memory."""

import torch
from torch import nn

from ehdnas.pipeline.timing import about, pass_seconds
from ehdnas.search.compute import CPU


class Greedy(nn.Module):
    """A layer with batch norm, that asks for more memory than there is for more than so many images."""

    def __init__(self, most):
        super().__init__()
        self.most = most
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))

    def forward(self, images):
        if len(images) > self.most:
            torch.empty(1 << 50)
        return self.layers(images)


def timed(most):
    network = Greedy(most).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seconds = pass_seconds(network, torch.randn(4, 1, 5, 5), CPU)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(one.grad is None for one in network.parameters())
    return seconds


def test_a_pass_is_timed_and_leaves_the_network_as_it_was():
    assert 0 < timed(4) < 5


def test_what_does_not_fit_is_not_timed():
    assert timed(3) is None


def test_what_is_not_known_is_not_said():
    assert about(None) == ""
    assert about(90) == "; about 2 min"
