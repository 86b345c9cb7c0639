"""Mixtures of all operations of the DARTS space: those of DARTS, and those of PC-DARTS.

DARTS (Liu, Simonyan, Yang, ICLR 2019, equation 2) sums the operations of an edge, weighted by a softmax over
them and `none`. PC-DARTS (Xu et al., ICLR 2020, equations 2 and 3) does so with a part of the channels, hands
the rest on, and weights the edges of a node by a softmax of their own. Both are computed as published,
without the skips beside operations that `Recipe.skip_beside` gives a single path.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ehdnas.core.errors import UsageError
from ehdnas.search.spaces.base import NetworkShape, Supernet
from ehdnas.search.spaces.darts.genotype import (
    CHOICES,
    EDGES,
    EDGES_PER_CELL,
    NODE_SLOTS,
    NODES,
    edges_of,
)
from ehdnas.search.spaces.darts.network import Body, Cell
from ehdnas.search.spaces.relaxations import Relaxation

PARTS = 4
"""Of PC-DARTS: one of so many equal parts of the channels goes through the operations."""


class Mixed(Relaxation):
    """The mixture of DARTS: a softmax over the eight choices of an edge, `none` among them."""

    def __init__(self, mask: Tensor) -> None:
        """Mix the operations 1 to 7 whose `mask` [7] is 0, not those far below it."""
        self.mask = mask

    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return the supernet that computes every operation whose gate is not 0."""
        return MixedSupernet(shape, parts=1)

    def gates(self, logits: Tensor) -> Tensor:
        """Return softmaxes [28, 8] over each edge's choices."""
        return torch.cat([logits[:, :1], logits[:, 1:] + self.mask], dim=1).softmax(dim=1)

    def distribution(self, logits: Tensor) -> Tensor:
        """Return logits whose likeliest architecture has each node's two strongest edges.

        An edge is as strong as its strongest operation but `none` (section 2.4): the log-probability of the
        operation, given that there is one, plus log(1 − P(none)), which column 0 holds negated.
        """
        operations = (logits[:, 1:] + self.mask).logsumexp(dim=1, keepdim=True)
        absent = torch.logaddexp(logits[:, :1], operations) - operations
        return torch.cat([absent, logits[:, 1:]], dim=1)


class Partial(Mixed):
    """The mixture of PC-DARTS: a softmax over the edges of a node times one over an edge's operations.

    Column 0 of the logits, negated, scores the edge, as it does where edges are drawn. `none` is no choice.
    """

    def check_shape(self, shape: NetworkShape) -> None:
        """Raise UsageError where the channels do not divide by four."""
        if shape.channels % PARTS:
            raise UsageError(
                f"{shape.channels} channels: --relaxation partial mixes a quarter of them; choose a multiple "
                f"of {PARTS}"
            )

    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return the supernet whose operations see a quarter of the channels."""
        self.check_shape(shape)
        return MixedSupernet(shape, PARTS)

    def gates(self, logits: Tensor) -> Tensor:
        """Return weights [28, 8] that sum to 1 over the edges of each node, column 0 being 0."""
        edges = torch.cat([(-logits[list(slots), 0]).softmax(dim=0) for slots in NODE_SLOTS])[:, None]
        operations = (logits[:, 1:] + self.mask).softmax(dim=1)
        return torch.cat([torch.zeros_like(edges), edges * operations], dim=1)

    def distribution(self, logits: Tensor) -> Tensor:
        """Return the logits as they are: a node's likeliest pair has the highest edge times operation."""
        return logits


class MixedSupernet(Supernet):
    """Every operation on every edge; a forward pass computes those whose gates are not 0."""

    def __init__(self, shape: NetworkShape, parts: int) -> None:
        super().__init__()
        every = {edge: tuple(range(1, len(CHOICES))) for edge in range(EDGES_PER_CELL)}
        self.body = Body(shape, (every, every), auxiliary=False, searching=True, parts=parts)
        self.parts = parts

    def forward(self, images: Tensor, gates: Tensor) -> Tensor:
        """Return logits [n, classes] of the mixture by gates [28, 8]; those of `none` weigh nothing."""
        weights = gates.to(images.device)
        used = [[c for c in range(1, len(CHOICES)) if row[c]] for row in gates.tolist()]
        s0, s1 = self.body.enter(images)
        for cell in self.body.cells:
            assert isinstance(cell, Cell)
            offset = EDGES_PER_CELL if cell.reduction else 0
            part = slice(offset, offset + EDGES_PER_CELL)
            s0, s1 = s1, self._mixed(cell, s0, s1, used[part], weights[part])
        return self.body.leave(s1)

    def _mixed(self, cell: Cell, s0: Tensor, s1: Tensor, used: list[list[int]], weights: Tensor) -> Tensor:
        states = [cell.preprocess0(s0), cell.preprocess1(s1)]
        for node in range(NODES):
            terms = [
                self._edge(cell, edge, states[EDGES[edge][1]], used[edge], weights[edge])
                for edge in edges_of(node)
                if used[edge]
            ]
            states.append(sum(terms[1:], terms[0]))
        return torch.cat(states[2:], dim=1)

    def _edge(self, cell: Cell, edge: int, x: Tensor, used: list[int], weights: Tensor) -> Tensor:
        mixed = x[:, : x.shape[1] // self.parts]
        terms = [weights[choice] * cell.edges[f"{edge}_{choice}"](mixed) for choice in used]
        out: Tensor = sum(terms[1:], terms[0])
        if self.parts == 1:
            return out
        rest = x[:, x.shape[1] // self.parts :]
        if out.shape[2] != x.shape[2]:
            rest = F.max_pool2d(rest, 2)
        # An edge's weights sum to the weight of the edge, which is that of the channels handed on.
        return F.channel_shuffle(torch.cat([out, rest * weights[1:].sum()], dim=1), self.parts)
