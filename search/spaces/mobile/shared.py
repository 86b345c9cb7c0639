"""A layer of the mobile supernet: one set of weights for all that can be chosen for it.

As in Once-for-All (Cai et al., arXiv 1908.09791), expansion 3 takes the first half of the channels of
expansion 6, and kernels 3 and 5 the middle of kernel 7. With convolutions of their own, choices would give
the layers after them unrelated features: on digits such a supernet has learnt nothing after 600 steps (a loss
of 2.38, ln 10 being 2.30), and this one comes to 1.0 in 400.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.spaces.mobile.blocks import SqueezeExcite, conv_bn
from ehdnas.search.spaces.mobile.layout import EXPANSIONS, KERNELS, OPERATIONS, WIDE, Stage
from ehdnas.search.spaces.mobile.network import block_size


class SharedLayer(nn.Module):
    """The branch of every MBConv block that a layer can have, between trunks of the widest width."""

    def __init__(self, stage: Stage, layer: int, shape: NetworkShape) -> None:
        super().__init__()
        size = block_size(stage, layer, len(OPERATIONS) - 1, shape, WIDE, WIDE)
        self.hidden = {each: stage.hidden(shape, layer, each) for each in EXPANSIONS}
        self.expand = conv_bn(size.cin, size.hidden)
        self.depthwise = conv_bn(size.hidden, size.hidden, KERNELS[-1], size.stride, groups=size.hidden)
        self.squeeze = nn.ModuleList(SqueezeExcite(hidden) for hidden in self.hidden.values())
        # Not affine: a learnt scale would settle where the loss no longer depends on it, nor on the gate.
        self.project = conv_bn(size.hidden, size.cout, active=False, affine=False)

    def inner(self, x: Tensor, choice: int) -> Tensor:
        """Return what a choice's depthwise convolution gives, [n, hidden, ⌈h / stride⌉, ⌈w / stride⌉]."""
        expansion, kernel = OPERATIONS[choice]
        hidden = self.hidden[expansion]
        expanded = leading(self.expand, x, hidden)
        return leading(self.depthwise, expanded, hidden, kernel)

    def outer(self, inner: Tensor, choice: int, squeezed: bool) -> Tensor:
        """Return [n, widest, h, w] of [n, hidden, h, w], with squeeze-and-excitation or without."""
        if squeezed:
            expansion, _ = OPERATIONS[choice]
            inner = self.squeeze[EXPANSIONS.index(expansion)](inner)
        return leading(self.project, inner, None)


def leading(layers: nn.Module, x: Tensor, channels: int | None, kernel: int = 1) -> Tensor:
    """Return what `conv_bn` layers give with part of their weights.

    Those of as many channels as `x` has, for the first `channels` of the output, or all, and in the middle
    `kernel` by `kernel` of the window.
    """
    assert isinstance(layers, nn.Sequential)
    conv, norm, *active = layers
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    out, groups = slice(channels), x.shape[1] if conv.groups > 1 else 1
    edge = (conv.weight.shape[2] - kernel) // 2
    middle = slice(edge, edge + kernel)
    weight = conv.weight[out, : x.shape[1] // groups, middle, middle]
    x = F.conv2d(x, weight, None, conv.stride, kernel // 2, groups=groups)
    x = F.batch_norm(
        x,
        _first(norm.running_mean, out),
        _first(norm.running_var, out),
        _first(norm.weight, out),
        _first(norm.bias, out),
        norm.training,
        norm.momentum or 0.0,
        norm.eps,
    )
    for layer in active:
        x = layer(x)
    return x


def _first(values: Tensor | None, out: slice) -> Tensor | None:
    return None if values is None else values[out]
