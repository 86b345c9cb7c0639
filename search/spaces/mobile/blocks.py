"""What mobile networks are built with: convolutions with ReLU6, squeeze-and-excitation, the MBConv block.

ReLU6 throughout, as in MobileNetV2, and no h-swish: it is the one activation that every target has, that
TensorFlow Lite and TensorRT fuse into the convolution before it, and that bounds what int8 must represent.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ehdnas.search.spaces.blocks import drop_path

_REDUCTION = 4  # of the channels that squeeze-and-excitation works on, as in MobileNetV3


def conv_bn(
    cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True,
    affine: bool = True,
) -> nn.Sequential:  # fmt: skip
    """Return a convolution and its batch norm, with ReLU6 where it is `active`; h becomes ⌈h / stride⌉."""
    layers = [
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout, affine=affine),
    ]
    return nn.Sequential(*layers, *[nn.ReLU6()] * active)


class SqueezeExcite(nn.Module):
    """Channels scaled by what their means say (Hu et al., CVPR 2018), by MobileNetV3's hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // _REDUCTION, 1)
        self.restore = nn.Conv2d(channels // _REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, channels, h, w] to the same."""
        scores = self.restore(F.relu(self.reduce(self.pool(x))))
        # relu6(x + 3) / 6 written out: operators that every target and every simulated accelerator has.
        return x * (F.relu6(scores + 3) * (1 / 6))


@dataclass(frozen=True)
class BlockSize:
    """The channels that enter an MBConv block, are inside it and leave it, its kernel and its stride."""

    cin: int
    hidden: int
    cout: int
    kernel: int
    stride: int


class MBConv(nn.Module):
    """The inverted residual block of MobileNetV2: expand, depthwise convolution, project.

    With `squeeze`, squeeze-and-excitation comes after the depthwise convolution, as in MobileNetV3. A
    `residual` block adds what it is fed, which a stage's first does not: it changes the channels.
    """

    def __init__(self, size: BlockSize, residual: bool, squeeze: bool) -> None:
        super().__init__()
        self.expand = conv_bn(size.cin, size.hidden)
        self.depthwise = conv_bn(size.hidden, size.hidden, size.kernel, size.stride, groups=size.hidden)
        self.squeeze = SqueezeExcite(size.hidden) if squeeze else None
        self.project = conv_bn(size.hidden, size.cout, active=False)
        self.residual = residual

    def forward(self, x: Tensor, drop: float = 0.0) -> Tensor:
        """Map [n, cin, h, w] to [n, cout, ⌈h / stride⌉, ⌈w / stride⌉]; `drop`: of the path, the chance."""
        out: Tensor = self.depthwise(self.expand(x))
        out = self.project(out if self.squeeze is None else self.squeeze(out))
        if not self.residual:
            return out
        return x + (drop_path(out, drop) if drop > 0 and self.training else out)
