"""Candidate operations: one entry in `OPERATIONS` each.

Those of DARTS (Liu, Simonyan, Yang, ICLR 2019, section 3.1), built as its authors build them:
convolutions in ReLU-Conv-BN order, separable ones applied twice, reductions by factorised reduce.
Those of NAS-Bench-201 (Dong, Yang, ICLR 2020, section 2.1): dense convolutions in the same order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Builder = Callable[[int, int, bool], nn.Module]


class ReLUConvBN(nn.Sequential):
    """ReLU, a dense convolution and batch norm."""

    def __init__(self, cin: int, cout: int, kernel: int = 1, affine: bool = True, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(cout, affine=affine),
        )


class DilConv(nn.Sequential):
    """ReLU, a depthwise convolution, a pointwise one and batch norm; dilation 1 gives half a sep_conv."""

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class FactorizedReduce(nn.Module):
    """Halve height and width: two strided 1×1 convolutions, one shifted by a pixel, concatenated."""

    def __init__(self, cin: int, cout: int, affine: bool = True) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(cin, cout // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(cin, cout - cout // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(cout, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, cin, h, w] with even h and w to [n, cout, h/2, w/2]."""
        x = self.relu(x)
        out: Tensor = self.bn(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
        return out


def _sep_conv(kernel: int) -> Builder:
    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return nn.Sequential(
            DilConv(channels, kernel, stride, 1, affine), DilConv(channels, kernel, 1, 1, affine)
        )

    return build


def _dil_conv(kernel: int) -> Builder:
    return lambda channels, stride, affine: DilConv(channels, kernel, stride, 2, affine)


def _nor_conv(kernel: int) -> Builder:
    return lambda channels, stride, affine: ReLUConvBN(channels, channels, kernel, affine, stride)


def _max_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.MaxPool2d(3, stride, padding=1)


def _avg_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)


def _skip_connect(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


OPERATIONS: dict[str, Builder] = {
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "skip_connect": _skip_connect,
    "sep_conv_3x3": _sep_conv(3),
    "sep_conv_5x5": _sep_conv(5),
    "dil_conv_3x3": _dil_conv(3),
    "dil_conv_5x5": _dil_conv(5),
    "nor_conv_1x1": _nor_conv(1),
    "nor_conv_3x3": _nor_conv(3),
}
"""Operation name -> builder(channels, stride, affine), mapping [n, C, h, w] to [n, C, h/stride, w/stride]."""


def build_operation(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """Return a candidate operation as it stands in a finished network."""
    return OPERATIONS[name](channels, stride, affine)
