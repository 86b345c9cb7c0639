"""A NAS-Bench-201 network cut into pieces that can be costed, exported and timed alone."""

from __future__ import annotations

from torch import Tensor, nn

from ehdnas.search.ops import build_operation
from ehdnas.search.spaces.base import Image, NetworkShape, Part, Parts
from ehdnas.search.spaces.nasbench201.genotype import CHOICES, EDGES, Choices
from ehdnas.search.spaces.nasbench201.network import Cell, NasBench201Network


class _Sum(nn.Module):
    """What a node does with a second edge and those after it: one addition each."""

    def forward(self, x: Tensor) -> Tensor:
        """Add once; what is added makes no difference to what it costs."""
        return x + x


class OneCell(nn.Module):
    """One cell of a finished network, as a module of its input."""

    def __init__(self, cell: Cell, choices: Choices) -> None:
        super().__init__()
        self.cell = cell
        self.choices = choices

    def forward(self, x: Tensor) -> Tensor:
        """Return the cell's output."""
        out: Tensor = self.cell(x, self.choices)
        return out


def cut(shape: NetworkShape, body: NasBench201Network) -> Parts:
    """Return the fixed parts, and for each (slot, choice) its operation and addition in every cell.

    Edges from nodes 1 and 2 bring an addition each, as they do where their node has an edge from the input
    too; where that one is `none`, it is one addition too many.
    """
    height, width = shape.image[1:]
    fixed = [Part("stem", body.stem, ((shape.image[0], height, width),))]
    chosen: dict[tuple[int, int], tuple[Part, ...]] = {}
    operations: dict[tuple[int, int], nn.Module] = {}
    added = _Sum()
    for name, block, image in blocks(shape, body):
        if not isinstance(block, Cell):
            fixed.append(Part(name, block, (image,)))
            continue
        for edge, (source, target) in enumerate(EDGES):
            for choice in range(1, len(CHOICES)):
                key = (choice, image[0])
                if key not in operations:
                    operations[key] = build_operation(CHOICES[choice], image[0], 1, affine=True)
                part = Part(f"{name}.edge{edge}.{CHOICES[choice]}", operations[key], (image,))
                sums = [Part(f"{name}.node{target}.sum", added, (image,))] if source else []
                chosen[edge, choice] = (*chosen.get((edge, choice), ()), part, *sums)
    pool = nn.Sequential(body.activation, nn.AdaptiveAvgPool2d(1), nn.Flatten(), body.classifier)
    fixed.append(Part("classifier", pool, (image,)))
    return Parts(tuple(fixed), chosen)


def cells(shape: NetworkShape, body: NasBench201Network) -> tuple[Part, ...]:
    """Return the cells of a network, without the residual blocks between them."""
    return tuple(
        Part(name, OneCell(block, body.choices), (image,))
        for name, block, image in blocks(shape, body)
        if isinstance(block, Cell)
    )


def blocks(shape: NetworkShape, body: NasBench201Network) -> list[tuple[str, nn.Module, Image]]:
    """Return the name of every cell and residual block, itself and the [c, h, w] it is fed."""
    found: list[tuple[str, nn.Module, Image]] = []
    scale = 8 if shape.stem == "imagenet" else 1
    image = (shape.channels, shape.image[1] // scale, shape.image[2] // scale)
    number = 0
    for index, stage in enumerate(body.stages):
        assert isinstance(stage, nn.ModuleList)
        for block in stage:
            if isinstance(block, Cell):
                found.append((f"cell{number}", block, image))
                number += 1
            else:
                found.append((f"reduction{index - 1}", block, image))
                image = (2 * image[0], image[1] // 2, image[2] // 2)
    return found
