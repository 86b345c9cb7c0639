"""A DARTS network cut into pieces that can be costed, exported and timed alone."""

from __future__ import annotations

from torch import Tensor, nn

from ehdnas.search.ops import build_operation
from ehdnas.search.spaces.base import Image, NetworkShape, Part, Parts
from ehdnas.search.spaces.darts.genotype import CHOICES, EDGES, EDGES_PER_CELL, NODES, Choices
from ehdnas.search.spaces.darts.network import Cell, DartsNetwork, reductions


class _NodeSums(nn.Module):
    """What the nodes of a cell do besides their operations: one addition each."""

    def forward(self, x: Tensor) -> Tensor:
        """Add as often as the cell has nodes; what is added makes no difference to what it costs."""
        for _ in range(NODES):
            x = x + x
        return x


class OneCell(nn.Module):
    """One cell of a finished network, as a module of its two inputs."""

    def __init__(self, cell: Cell, choices: Choices) -> None:
        super().__init__()
        self.cell = cell
        self.choices = choices

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        """Return the cell's output for those of the two cells before it."""
        out: Tensor = self.cell(before_last, last, self.choices, None, 0.0)
        return out


class Cutter:
    """Walks the body of a DARTS network once and notes what is fed to each part of it.

    Which edges an architecture uses changes nothing else in the network, so the cost of any architecture
    is that of the fixed parts and of the chosen ones, wherever a device runs layers one after another.
    """

    def __init__(self, shape: NetworkShape, body: DartsNetwork) -> None:
        self.shape = shape
        self.body = body
        self.fixed: list[Part] = []
        self.cells: list[Part] = []
        self.chosen: dict[tuple[int, int], tuple[Part, ...]] = {}
        self._built: dict[tuple[int, int, int], nn.Module] = {}

    def cut(self) -> Parts:
        """Return the fixed parts, and for each (slot, choice) its operation in every cell of its kind."""
        height, width = self.shape.image[1:]
        inputs, (height, width) = self._stems(height, width)
        channels = self.shape.channels
        before = (height * 2, width * 2) if self.shape.stem == "imagenet" else (height, width)
        for index, cell in enumerate(self.body.cells):
            reduction = index in reductions(self.shape.cells)
            channels = 2 * channels if reduction else channels
            assert isinstance(cell, Cell)
            fed = ((inputs[0], *before), (inputs[1], height, width))
            self.cells.append(Part(f"cell{index}", OneCell(cell, self._choices(reduction)), fed))
            self._fixed(f"cell{index}.preprocess0", cell.preprocess0, fed[0])
            self._fixed(f"cell{index}.preprocess1", cell.preprocess1, fed[1])
            self._edges(index, channels, (height, width), reduction)
            inputs, before = (inputs[1], NODES * channels), (height, width)
            if reduction:
                height, width = height // 2, width // 2
            self._fixed(f"cell{index}.nodes", _NodeSums(), (channels, height, width))
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.body.classifier)
        self._fixed("classifier", pool, (inputs[1], height, width))
        return Parts(tuple(self.fixed), self.chosen)

    def _stems(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        channels, imagenet = self.shape.channels, self.shape.stem == "imagenet"
        self._fixed("stem0", self.body.stems[0], (self.shape.image[0], height, width))
        if not imagenet:
            return (3 * channels, 3 * channels), (height, width)
        self._fixed("stem1", self.body.stems[1], (channels, height // 4, width // 4))
        return (channels, channels), (height // 8, width // 8)

    def _choices(self, reduction: bool) -> Choices:
        half = self.body.choices[EDGES_PER_CELL:] if reduction else self.body.choices[:EDGES_PER_CELL]
        return tuple(half)

    def _fixed(self, name: str, module: nn.Module, image: Image) -> None:
        self.fixed.append(Part(name, module, (image,)))

    def _edges(self, cell: int, channels: int, size: tuple[int, int], reduction: bool) -> None:
        offset = EDGES_PER_CELL if reduction else 0
        for edge, (_, source) in enumerate(EDGES):
            stride = 2 if reduction and source < 2 else 1
            shrink = 2 if reduction and source >= 2 else 1
            image = (channels, size[0] // shrink, size[1] // shrink)
            for choice in range(1, len(CHOICES)):
                key = (choice, channels, stride)
                if key not in self._built:
                    self._built[key] = build_operation(CHOICES[choice], channels, stride, affine=True)
                part = Part(f"cell{cell}.edge{edge}.{CHOICES[choice]}", self._built[key], (image,))
                slot = (offset + edge, choice)
                self.chosen[slot] = (*self.chosen.get(slot, ()), part)
