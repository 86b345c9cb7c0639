"""What a supernet computes at a step of a search: one sampled architecture, or a mixture of them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from torch import Tensor

if TYPE_CHECKING:
    from ehdnas.search.spaces.base import NetworkShape, Space, Supernet

Kind = Literal["single", "mixed", "partial"]


class Relaxation(ABC):
    """A continuous relaxation of a space: its supernet, and the gates that it is computed with."""

    def check_shape(self, shape: NetworkShape) -> None:  # noqa: B027 - most have nothing to ask of it
        """Raise UsageError where the space's networks can be built at this shape and its supernet cannot."""

    @abstractmethod
    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return the supernet of this shape, which computes one-hot gates as the architecture they select.

        Raises:
            UsageError: it cannot be built at this shape.
        """

    @abstractmethod
    def gates(self, logits: Tensor) -> Tensor:
        """Return the gates [slots, choices] of one step, differentiable by `logits` [slots, choices]."""

    @abstractmethod
    def distribution(self, logits: Tensor) -> Tensor:
        """Return the logits [slots, choices] that `Space.relax` and `Space.most_likely` are to be given."""


class SinglePath(Relaxation):
    """One architecture, drawn anew each step and computed alone (GDAS: Dong, Yang, CVPR 2019)."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return the space's own supernet."""
        return self.space.supernet(shape)

    def gates(self, logits: Tensor) -> Tensor:
        """Return one-hot gates, drawn."""
        return self.space.relax(logits)

    def distribution(self, logits: Tensor) -> Tensor:
        """Return the logits as they are."""
        return logits
