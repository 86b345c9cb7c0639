"""NAS-Bench-201 networks: three stages of one cell, with the edges of one architecture or of all of them.

One set of modules serves the supernet and the final network, as in the DARTS space. Layout as in the
authors' code (Dong, Yang, ICLR 2020, figure 1). Every edge that is not `none` is built, so that a network
has the parameters the benchmark reports, but only those on a path from the cell's input to its output are
computed. The authors also run the edges out of a node that nothing reaches; all that comes of it is a
constant for each channel.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from ehdnas.core.errors import UsageError
from ehdnas.search.ops import ReLUConvBN, build_operation
from ehdnas.search.spaces.base import NetworkShape, Supernet
from ehdnas.search.spaces.blocks import AuxiliaryHead, Gates, cifar_stem, gates_of, imagenet_stem
from ehdnas.search.spaces.nasbench201.genotype import CHOICES, EDGES, GRAPH, NODES, SLOTS, Choices

EdgeChoices = Mapping[int, tuple[int, ...]]
"""Edge of a cell -> the choices that edge holds an operation for."""

STAGES = 3


def stage_cells(cells: int) -> tuple[int, ...]:
    """Return how many cells each stage has: the same, what is left over going to the first ones.

    The first stages have the fewest parameters; at a cell's four-fold fewer pixels and double width, all
    have the same work.
    """
    return tuple(cells // STAGES + (stage < cells % STAGES) for stage in range(STAGES))


class Cell(nn.Module):
    """A cell: four nodes, the first its input, each other the sum of its edges, the last its output."""

    def __init__(self, edges: EdgeChoices, channels: int, searching: bool) -> None:
        super().__init__()
        self.edges = nn.ModuleDict()
        for edge, choices in edges.items():
            for choice in choices:
                # No affine parameters in the search, where they would rescale the choices.
                operation = build_operation(CHOICES[choice], channels, 1, affine=not searching)
                self.edges[f"{edge}_{choice}"] = operation

    def forward(self, x: Tensor, choices: Choices, gates: Gates | None = None) -> Tensor:
        """Return [n, C, h, w] of [n, C, h, w]; `gates`, one an edge, scale it, so that gradients reach them.

        What the output does not depend on is not computed.
        """
        states = {0: x}
        live = GRAPH.live(choices)
        for edge, (source, target) in enumerate(EDGES):
            if edge in live:
                choice = choices[edge]
                out: Tensor = self.edges[f"{edge}_{choice}"](states[source])
                out = out if gates is None else out * gates[edge]
                states[target] = states[target] + out if target in states else out
        return states[NODES - 1]


class Reduction(nn.Module):
    """The residual block between stages: half the resolution, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            ReLUConvBN(channels, 2 * channels, 3, stride=2), ReLUConvBN(2 * channels, 2 * channels, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, C, h, w] with even h and w to [n, 2·C, h/2, w/2]."""
        out: Tensor = self.shortcut(x) + self.convolutions(x)
        return out


class Body(nn.Module):
    """Stem, stages, pooling and classifier, shared by the supernet and the final network."""

    def __init__(self, shape: NetworkShape, edges: EdgeChoices, auxiliary: bool, searching: bool) -> None:
        super().__init__()
        imagenet = shape.stem == "imagenet"
        stems = imagenet_stem(shape) if imagenet else cifar_stem(shape, shape.channels)
        self.stem = nn.Sequential(*stems)
        self.stages = nn.ModuleList()
        for stage, cells in enumerate(stage_cells(shape.cells)):
            channels = shape.channels * 2**stage
            before = [Reduction(channels // 2)] if stage else []
            self.stages.append(
                nn.ModuleList([*before, *(Cell(edges, channels, searching) for _ in range(cells))])
            )
        scale = 2 * (8 if imagenet else 1)
        size = (shape.image[1] // scale, shape.image[2] // scale)
        self.auxiliary = AuxiliaryHead(2 * shape.channels, size, shape.classes) if auxiliary else None
        last = shape.channels * 2 ** (STAGES - 1)
        self.activation = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU())
        self.classifier = nn.Linear(last, shape.classes)

    def run(self, x: Tensor, choices: Choices, gates: Gates | None = None) -> tuple[Tensor, Tensor | None]:
        """Return (logits, auxiliary logits or None) of one architecture."""
        x, auxiliary = self.stem(x), None
        for number, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                x = block(x, choices, gates) if isinstance(block, Cell) else block(x)
            if number == 1 and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(x)
        pooled = F.adaptive_avg_pool2d(self.activation(x), 1).flatten(1)
        return self.classifier(pooled), auxiliary


class NasBench201Network(Body):
    """A final network: [n, c, h, w] to logits, or (logits, auxiliary logits) while training with the head.

    The benchmark's own networks are trained with neither an auxiliary head nor drop-path; the head is there
    for recipes that want one, after the second stage.
    """

    def __init__(self, choices: Choices, shape: NetworkShape, auxiliary: bool) -> None:
        edges = {edge: (choice,) for edge, choice in enumerate(choices) if choice}
        super().__init__(shape, edges, auxiliary, searching=False)
        self.choices = choices

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map images [n, c, h, w] to logits [n, classes]."""
        logits, auxiliary = self.run(x, self.choices)
        return logits if auxiliary is None else (logits, auxiliary)


class NasBench201Supernet(Supernet):
    """Every operation on every edge; a forward pass computes the one architecture its gates select."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        every = {edge: tuple(range(1, len(CHOICES))) for edge in range(SLOTS)}
        self.body = Body(shape, every, auxiliary=False, searching=True)

    def forward(self, images: Tensor, gates: Tensor) -> Tensor:
        """Return logits [n, classes] of the architecture that `gates` [6, 5] select.

        Raises:
            UsageError: no path joins a cell's input to its output.
        """
        choices = tuple(gates.argmax(dim=1).tolist())
        if not GRAPH.live(choices):
            raise UsageError("nasbench201: the gates select no path from a cell's input to its output")
        return self.body.run(images, choices, gates_of(gates, choices, images))[0]
