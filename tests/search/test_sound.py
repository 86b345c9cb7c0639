"""A space that somebody wrote is tried before it is used; each fault is one line that names it."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from ehdnas.core import plugins
from ehdnas.core.errors import UsageError
from ehdnas.search.spaces.base import NetworkShape, find_space
from ehdnas.search.spaces.nasbench201.space import NasBench201Space
from ehdnas.search.spaces.sound import require_sound

SHAPE = NetworkShape(4, 3, (1, 8, 8), 5)


class Gateless(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images, gates):
        return self.inner(images, gates.detach())


def raising(*_):
    raise RuntimeError("my bug\nand more")


class Reads(NasBench201Space):
    def parse(self, text):
        return super().parse(text.replace("1", "2"))


class Forgets(NasBench201Space):
    def text(self, architecture):
        return "444444"


class Network(NasBench201Space):
    network = raising


class Classes(NasBench201Space):
    def network(self, architecture, shape, auxiliary=False):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


class Parts(NasBench201Space):
    parts = raising


class Shapeless(NasBench201Space):
    def supernet(self, shape):
        return lambda images, gates: gates[7].sum() * images


class Blind(NasBench201Space):
    def supernet(self, shape):
        return Gateless(super().supernet(shape))


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (Reads, "parse: genotype: edge 1 of node 2"),
        (Forgets, "parse does not read back what text gives"),
        (Network, "network raised RuntimeError: my bug; `ehdnas --debug ...` shows where"),
        (Classes, r"network gives \(2, 3\) for two images, not logits \(2, 5\)"),
        (Parts, "parts raised RuntimeError: my bug"),
        (Shapeless, "supernet raised IndexError"),
        (Blind, "supernet gives the gates no gradient"),
    ],
)
def test_what_is_wrong_with_a_space_is_said_in_a_line(space, says):
    with pytest.raises(UsageError, match=says) as caught:
        require_sound(space(), SHAPE)
    assert f"space 'nasbench201' ({__name__}.{space.__name__})" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["darts", "darts-sized", "nasbench201", "mobile"])
def test_the_built_in_spaces_are_sound(name):
    image = (3, 32, 32)
    _, cells = find_space(name).sizes.get("cifar10", (4, 5))
    before = torch.get_rng_state()
    require_sound(find_space(name), NetworkShape(4, cells, image, 5))
    torch.set_rng_state(before)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"mine": "tests_mine:Nothing"}, "space 'mine' cannot be loaded from tests_mine:Nothing"),
        ({"mine": "no_such_module:Space"}, "No module named 'no_such_module'"),
        ({"mine": "tests_mine:Abstract"}, "space 'mine' cannot be made: .*abstract"),
        ({"mine": "tests_mine:Misnamed"}, "space 'mine' is called 'nasbench201'"),
        ({"darts": "tests_mine:Misnamed"}, "space 'darts' is both .*rename one's entry point"),
    ],
)
def test_an_entry_point_that_cannot_be_right_is_said_in_a_line(entries, says, monkeypatch):
    from importlib.metadata import EntryPoint, entry_points

    from ehdnas.search.spaces.base import Space

    module = ModuleType("tests_mine")
    module.Misnamed = Reads
    module.Abstract = type("Abstract", (Space,), {"name": "mine"})
    monkeypatch.setitem(sys.modules, "tests_mine", module)
    added = [EntryPoint(name, value, "ehdnas.spaces") for name, value in entries.items()]

    def both(group, name=None):
        known = [*entry_points(group=group), *added]
        return [one for one in known if name in (None, one.name)]

    monkeypatch.setattr(plugins, "entry_points", both)
    find_space.cache_clear()
    with pytest.raises(UsageError, match=says):
        find_space(next(iter(entries)))
    find_space.cache_clear()
