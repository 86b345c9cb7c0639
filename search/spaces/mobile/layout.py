"""How the networks of the mobile space are laid out, and which slot decides what.

Six stages, as in MobileNetV2 (Sandler et al., arXiv 1801.04381, table 2) and, with up to four layers each, in
ProxylessNAS (Cai, Zhu, Han, arXiv 1812.00332). The slots of a stage are its width, whether its layers have
squeeze-and-excitation, then one for each layer that it can have.
"""

from __future__ import annotations

from dataclasses import dataclass

from ehdnas.search.spaces.base import CellGraph, NetworkShape

KERNELS, EXPANSIONS = (3, 5, 7), (3, 6)
OPERATIONS = tuple((expansion, kernel) for expansion in EXPANSIONS for kernel in KERNELS)
"""(expansion, kernel) of choice 0, 1, ... of a layer."""
LAYER_NAMES = (*(f"mbconv_e{expansion}_k{kernel}" for expansion, kernel in OPERATIONS), "skip")
SKIP = len(OPERATIONS)
WIDTH_NAMES = ("narrow", "medium", "wide")
NARROW, MEDIUM, WIDE = range(3)
SQUEEZE_NAMES = ("no_squeeze_excite", "squeeze_excite")
PLAIN, SQUEEZED = range(2)


@dataclass(frozen=True)
class Stage:
    """A stage: `first_slot` of the space, how many layers it can have, and what it does to the image.

    `widths` are the channels that leave it, narrow, medium and wide, in halves of `NetworkShape.channels`:
    about 3/4, 1 and 5/4 of MobileNetV2's, so chosen that all are multiples of 8 at 16 channels.
    `strides` are those of the first layer after the cifar and after the imagenet stem.
    """

    number: int
    first_slot: int
    layers: int
    widths: tuple[int, int, int]
    strides: tuple[int, int]

    @property
    def width_slot(self) -> int:
        """The slot that chooses among `widths`."""
        return self.first_slot

    @property
    def squeeze_slot(self) -> int:
        """The slot that chooses whether the layers have squeeze-and-excitation."""
        return self.first_slot + 1

    @property
    def layer_slots(self) -> range:
        """The slots of the layers, first to last."""
        return range(self.first_slot + 2, self.first_slot + 2 + self.layers)

    def channels(self, shape: NetworkShape, width: int) -> int:
        """Return the channels that leave the stage."""
        return self.widths[width] * shape.channels // 2

    def stride(self, shape: NetworkShape) -> int:
        """Return the stride of the first layer."""
        return self.strides[shape.stem == "imagenet"]

    def hidden(self, shape: NetworkShape, layer: int, expansion: int) -> int:
        """Return the channels inside a layer: the expansion of what feeds it at medium width.

        They do not follow the width, so that width is what leaves a block and expansion what is inside
        it; each is chosen by itself, and the cost of a convolution depends on two slots at most.
        """
        fed = entering(self.number, shape, MEDIUM) if layer == 0 else self.channels(shape, MEDIUM)
        return expansion * fed


def _stages() -> tuple[Stage, ...]:
    rows: tuple[tuple[int, tuple[int, int, int], tuple[int, int]], ...] = (
        (4, (2, 3, 4), (1, 2)),
        (4, (3, 4, 5), (2, 2)),
        (4, (6, 8, 10), (2, 2)),
        (4, (9, 12, 15), (1, 1)),
        (4, (15, 20, 25), (2, 2)),
        (1, (30, 40, 50), (1, 1)),
    )
    found, slot = [], 0
    for number, (layers, widths, strides) in enumerate(rows):
        found.append(Stage(number, slot, layers, widths, strides))
        slot += 2 + layers
    return tuple(found)


STAGES = _stages()
LAYERS = sum(stage.layers for stage in STAGES)
OPTIONS = tuple(
    names
    for stage in STAGES
    for names in (
        WIDTH_NAMES,
        SQUEEZE_NAMES,
        LAYER_NAMES[:SKIP],  # a stage changes the number of channels, so it has at least one layer
        *[LAYER_NAMES] * (stage.layers - 1),
    )
)
SLOTS = len(OPTIONS)
GRAPHS = tuple(
    CellGraph(
        nodes=stage.layers + 1,
        inputs=(0,),
        outputs=(stage.layers,),
        edges=tuple((layer, layer + 1, slot) for layer, slot in enumerate(stage.layer_slots)),
        absent=frozenset(),
        identity=frozenset({SKIP}),
    )
    for stage in STAGES
)
"""Each stage as a chain of its layers."""


def entering(stage: int, shape: NetworkShape, width: int) -> int:
    """Return the channels that enter a stage: those of the one before at that width, or of the stem."""
    return STAGES[stage - 1].channels(shape, width) if stage else shape.channels
