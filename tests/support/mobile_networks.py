"""The mobile space at a small size, and its architectures as tests need them."""

import numpy as np

from ehdnas.search.spaces.base import Architecture, NetworkShape
from ehdnas.search.spaces.mobile.layout import LAYERS, SKIP, STAGES
from ehdnas.search.spaces.mobile.space import MobileSpace

SPACE = MobileSpace()
SMALL = NetworkShape(4, LAYERS, (3, 16, 16), 5)


def sampled(seed, space=SPACE):
    return space.sample(np.random.default_rng(seed))


def changed(architecture, **slots):
    choices = list(architecture.choices)
    for slot, choice in slots.items():
        choices[int(slot[1:])] = choice
    return Architecture(tuple(choices))


def depths(architecture):
    return [sum(architecture.choices[slot] != SKIP for slot in stage.layer_slots) for stage in STAGES]
