"""The supernet of a sized space: one for each size, which share no weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ehdnas.search.spaces.base import Space, Supernet
from ehdnas.search.spaces.sized.sizes import SIZES


class SizedSupernet(Supernet):
    """Supernets of all sizes, in the order of `SIZES`; a forward pass computes one.

    Cells of another depth work at other resolutions, so there is little that they could share.
    """

    def __init__(self, sizes: Sequence[Supernet], space: Space) -> None:
        super().__init__()
        self.sizes = nn.ModuleList(sizes)
        self._slots, self._choices = space.slots, space.choices

    def forward(self, images: Tensor, gates: Tensor) -> Tensor:
        """Return logits [n, classes] of the architecture that `gates` [slots + 2, choices] select."""
        width, depth = gates[self._slots :].argmax(dim=1).tolist()
        supernet = self.sizes[SIZES.index((width, depth))]
        assert isinstance(supernet, Supernet)
        supernet.skip_beside = self.skip_beside
        logits: Tensor = supernet(images, gates[: self._slots, : self._choices])
        if not gates.requires_grad:
            return logits
        return logits * (gates[-2, width] * gates[-1, depth]).to(logits.device)
