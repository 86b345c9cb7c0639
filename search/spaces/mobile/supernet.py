"""The supernet of the mobile space: what a layer can be shares its weights, and one path is computed.

Widths are masks, as in FBNetV2 (Wan et al., arXiv 2004.05565), not slices: at the widest, with the channels a
width lacks set to 0, one pass tells how the loss would change with *every* width, which slices cannot, and
costs at most what the widest network does. A mask comes after a batch norm, whose statistics are of each
channel alone, so what is masked changes nothing of what is kept. Only what leaves blocks is masked: inside
them there are as many channels whatever the width.

Where gradients by the gates are wanted, the path alone would not do. Batch norm takes out the scale of what
it is fed, so with no residual around a block the gradient by a factor on its output is 0: the block has
nothing to be compared with. As in ProxylessNAS (Cai, Zhu, Han, arXiv 1812.00332, section 3.2.1), one more
choice of each layer is computed then and added times its gate, which is 0: the value stays that of the path,
and the gradient by that gate says what the loss would be like with it. So is the block with the other
decision about squeeze-and-excitation. `bench/mobile_supernet.py` compares these gradients with what becomes
of the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ehdnas.search.spaces.base import NetworkShape, Supernet
from ehdnas.search.spaces.mobile.layout import OPERATIONS, SKIP, SQUEEZED, STAGES, WIDE, WIDTH_NAMES, Stage
from ehdnas.search.spaces.mobile.network import HEAD, head, pool, stem
from ehdnas.search.spaces.mobile.shared import SharedLayer


class MobileSupernet(Supernet):
    """Every operation of every layer; a forward pass computes the one architecture its gates select."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.stem = stem(shape)
        self.stages = nn.ModuleList(SharedStage(stage, shape) for stage in STAGES)
        self.head = head(shape, STAGES[-1].channels(shape, WIDE))
        self.pool = pool()
        self.classifier = nn.Linear(HEAD * shape.channels, shape.classes)

    def forward(self, images: Tensor, gates: Tensor) -> Tensor:
        """Return logits [n, classes] of the architecture that `gates` [33, 7] select."""
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x, gates)
        logits: Tensor = self.classifier(self.pool(self.head(x)))
        return logits


class SharedStage(nn.Module):
    """The layers of a stage, [n, widest, h, w] to [n, widest, ⌈h / stride⌉, ⌈w / stride⌉]."""

    def __init__(self, stage: Stage, shape: NetworkShape) -> None:
        super().__init__()
        self.stage = stage
        self.layers = nn.ModuleList(SharedLayer(stage, layer, shape) for layer in range(stage.layers))
        channels = torch.arange(stage.channels(shape, WIDE))
        widths = [stage.channels(shape, width) for width in range(len(WIDTH_NAMES))]
        self.masks: Tensor
        masks = torch.stack([channels < width for width in widths]).float()
        self.register_buffer("masks", masks, persistent=False)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Return the output of the layers that `gates` [33, 7] select."""
        mask = (gates[self.stage.width_slot, : len(WIDTH_NAMES)] @ self.masks)[None, :, None, None]
        squeeze = gates[self.stage.squeeze_slot]
        compared = gates.requires_grad and torch.is_grad_enabled()
        for number, (layer, slot) in enumerate(zip(self.layers, self.stage.layer_slots, strict=True)):
            assert isinstance(layer, SharedLayer)
            choice = int(gates[slot].argmax())
            terms = [] if choice == SKIP else _chosen(layer, x, choice, gates[slot], squeeze, compared)
            if compared:
                terms.append(_other(layer, x, choice, gates[slot], squeeze))
            if terms:
                out = sum(terms[1:], start=terms[0]) * mask
                x = x + out if number else out
            if choice == SKIP:
                break  # and so are all layers after it
        return x


def _chosen(
    layer: SharedLayer, x: Tensor, choice: int, gate: Tensor, squeeze: Tensor, compared: bool
) -> list[Tensor]:
    """Return what the chosen block adds and, `compared`, what it would with the other decision."""
    taken = int(squeeze.argmax())
    inner = layer.inner(x, choice)
    out = layer.outer(inner, choice, taken == SQUEEZED)
    if not compared:
        return [out]
    with torch.no_grad():
        other = layer.outer(inner, choice, taken != SQUEEZED)
    return [out * (gate[choice] * squeeze[taken]), other * squeeze[1 - taken]]


def _other(layer: SharedLayer, x: Tensor, choice: int, gate: Tensor, squeeze: Tensor) -> Tensor:
    """Return what another block, drawn at random, adds by its gate, which is 0.

    It stands for all the others, and counts as many times, so that the gradient is right on average.
    """
    others = [other for other in range(len(OPERATIONS)) if other != choice]
    drawn = others[int(torch.randint(len(others), ()))]
    with torch.no_grad():
        out = layer.outer(layer.inner(x, drawn), drawn, int(squeeze.argmax()) == SQUEEZED)
    return out * (len(others) * gate[drawn])
