"""DARTS networks: cells of four nodes, with the edges of one architecture or of all of them.

One set of modules serves the supernet and the final network: a final network is a supernet whose
edges hold one operation each. Layout as in the authors' code (Liu, Simonyan, Yang, ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ehdnas.search.ops import FactorizedReduce, ReLUConvBN, build_operation
from ehdnas.search.spaces.base import NetworkShape, Supernet
from ehdnas.search.spaces.blocks import AuxiliaryHead, Gates, cifar_stem, drop_path, gates_of, imagenet_stem
from ehdnas.search.spaces.darts.genotype import CHOICES, EDGES, EDGES_PER_CELL, NODES, Choices, edges_of

EdgeChoices = Mapping[int, tuple[int, ...]]
"""Edge of a cell -> the choices that edge holds an operation for."""


def reductions(cells: int) -> tuple[int, ...]:
    """Return which cells halve the resolution: those at a third and two thirds of the depth."""
    return tuple(sorted({cells // 3, 2 * cells // 3}))


class Cell(nn.Module):
    """A cell: two inputs, four nodes that each sum two edges, the nodes concatenated."""

    def __init__(
        self, edges: EdgeChoices, inputs: tuple[int, int], channels: int, reduction: bool,
        reduced_before: bool, searching: bool, parts: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        # As the authors do: no affine parameters in the search, where they would rescale the choices,
        # and pools normalised there, so that no operation wins by its scale.
        affine = not searching
        own = channels // parts  # of those that a mixture computes operations on
        self.reduction = reduction
        first, second = inputs
        self.preprocess0: nn.Module = (
            FactorizedReduce(first, channels, affine)
            if reduced_before
            else ReLUConvBN(first, channels, affine=affine)
        )
        self.preprocess1 = ReLUConvBN(second, channels, affine=affine)
        self.edges = nn.ModuleDict()
        for edge, choices in edges.items():
            stride = 2 if reduction and EDGES[edge][1] < 2 else 1
            for choice in choices:
                operation = build_operation(CHOICES[choice], own, stride, affine)
                if searching and "pool" in CHOICES[choice]:
                    operation = nn.Sequential(operation, nn.BatchNorm2d(own, affine=False))
                self.edges[f"{edge}_{choice}"] = operation

    def forward(
        self, s0: Tensor, s1: Tensor, choices: Choices, gates: Gates | None, drop: float, beside: float = 0.0
    ) -> Tensor:
        """Return [n, 4·C, h, w]; `gates`, one an edge, scale the edges, so that gradients reach them.

        Args:
            drop: the probability that a sample loses an edge.
            beside: the weight of a skip beside the operation of every edge that keeps the resolution.
        """
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        for node in range(NODES):
            used = [edge for edge in edges_of(node) if choices[edge]]
            terms = [self._edge(edge, choices[edge], states, gates, drop) for edge in used]
            if beside > 0:
                sources = [EDGES[edge][1] for edge in used]
                terms += [beside * states[one] for one in sources if not (self.reduction and one < 2)]
            states.append(sum(terms[1:], terms[0]))
        return torch.cat(states[2:], dim=1)

    def _edge(self, edge: int, choice: int, states: list[Tensor], gates: Gates | None, drop: float) -> Tensor:
        operation = self.edges[f"{edge}_{choice}"]
        out: Tensor = operation(states[EDGES[edge][1]])
        if drop > 0 and self.training and not isinstance(operation, nn.Identity):
            out = drop_path(out, drop)
        return out if gates is None else out * gates[edge]


class Body(nn.Module):
    """Stem, cells, pooling and classifier, shared by the supernet and the final network."""

    def __init__(
        self, shape: NetworkShape, edges: tuple[EdgeChoices, EdgeChoices], auxiliary: bool, searching: bool,
        parts: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        imagenet = shape.stem == "imagenet"
        self.stems = imagenet_stem(shape) if imagenet else cifar_stem(shape, 3 * shape.channels)
        inputs = (shape.channels, shape.channels) if imagenet else (3 * shape.channels, 3 * shape.channels)
        channels, reduced = shape.channels, imagenet
        scale = 8 if imagenet else 1
        self.cells = nn.ModuleList()
        self.auxiliary: AuxiliaryHead | None = None
        for index in range(shape.cells):
            reduction = index in reductions(shape.cells)
            channels, scale = (2 * channels, 2 * scale) if reduction else (channels, scale)
            cell = Cell(edges[int(reduction)], inputs, channels, reduction, reduced, searching, parts)
            self.cells.append(cell)
            inputs, reduced = (inputs[1], NODES * channels), reduction
            if auxiliary and index == 2 * shape.cells // 3:
                size = (shape.image[1] // scale, shape.image[2] // scale)
                self.auxiliary = AuxiliaryHead(inputs[1], size, shape.classes)
        self.auxiliary_at = 2 * shape.cells // 3
        self.classifier = nn.Linear(inputs[1], shape.classes)
        self.drop_path = 0.0
        self.skip_beside = 0.0

    def enter(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of the first cell, of images [n, c, h, w]."""
        s0 = self.stems[0](x)
        return s0, self.stems[1](s0) if len(self.stems) > 1 else s0

    def leave(self, last: Tensor) -> Tensor:
        """Return logits [n, classes] of the last cell's output."""
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(last, 1).flatten(1))
        return logits

    def run(self, x: Tensor, choices: Choices, gates: Gates | None = None) -> tuple[Tensor, Tensor | None]:
        """Return (logits, auxiliary logits or None) of one architecture."""
        s0, s1 = self.enter(x)
        auxiliary = None
        for index, cell in enumerate(self.cells):
            part = slice(EDGES_PER_CELL, None) if cell.reduction else slice(EDGES_PER_CELL)
            cell_gates = None if gates is None else gates[part]
            s0, s1 = s1, cell(s0, s1, choices[part], cell_gates, self.drop_path, self.skip_beside)
            if index == self.auxiliary_at and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(s1)
        return self.leave(s1), auxiliary


class DartsNetwork(Body):
    """A final network: [n, c, h, w] to logits, or (logits, auxiliary logits) while training with the head."""

    def __init__(self, choices: Choices, shape: NetworkShape, auxiliary: bool) -> None:
        normal, reduction = choices[:EDGES_PER_CELL], choices[EDGES_PER_CELL:]
        super().__init__(shape, (_used(normal), _used(reduction)), auxiliary, searching=False)
        self.choices = choices

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map images [n, c, h, w] to logits [n, classes]."""
        logits, auxiliary = self.run(x, self.choices)
        return logits if auxiliary is None else (logits, auxiliary)


class DartsSupernet(Supernet):
    """Every operation on every edge; a forward pass computes the one architecture its gates select."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        every = {edge: tuple(range(1, len(CHOICES))) for edge in range(EDGES_PER_CELL)}
        self.body = Body(shape, (every, every), auxiliary=False, searching=True)

    def forward(self, images: Tensor, gates: Tensor) -> Tensor:
        """Return logits [n, classes] of the architecture that `gates` [28, 8] select."""
        choices = tuple(gates.argmax(dim=1).tolist())
        self.body.skip_beside = self.skip_beside
        return self.body.run(images, choices, gates_of(gates, choices, images))[0]


def _used(cell: Choices) -> EdgeChoices:
    return {edge: (choice,) for edge, choice in enumerate(cell) if choice}
