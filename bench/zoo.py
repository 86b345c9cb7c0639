"""Well-known image classifiers with random weights, for 224x224 images: what layer tables are checked on.

Plain definitions after the papers, so that nothing needs torchvision. `ZOO` maps names to builders.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn


def conv(
    cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """A convolution with padding to keep the size, batch norm and, if asked for, a ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers["norm"] = nn.BatchNorm2d(cout)
    if relu:
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def head(channels: int) -> list[nn.Module]:
    """Global pooling and a classifier of 1000 classes."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)), with a pointwise shortcut where the shape changes."""

    def __init__(self, body: nn.Module, cin: int, cout: int, stride: int):
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity()
        if stride > 1 or cin != cout:
            self.shortcut = conv(cin, cout, 1, stride, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def basic(cin: int, width: int, stride: int) -> Residual:
    body = nn.Sequential(conv(cin, width, 3, stride), conv(width, width, 3, relu=False))
    return Residual(body, cin, width, stride)


def bottleneck(cin: int, width: int, stride: int) -> Residual:
    """The variant with the stride in the 3x3 convolution (ResNet v1.5)."""
    outer = 4 * width
    body = nn.Sequential(
        conv(cin, width, 1), conv(width, width, 3, stride), conv(width, outer, 1, relu=False)
    )
    return Residual(body, cin, outer, stride)


def _resnet(block: Callable[[int, int, int], Residual], depths: list[int], expansion: int) -> nn.Sequential:
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    cin = 64
    for stage, depth in enumerate(depths):
        for index in range(depth):
            layers.append(block(cin, 64 << stage, 2 if stage and not index else 1))
            cin = (64 << stage) * expansion
    return nn.Sequential(*layers, *head(cin))


def resnet18() -> nn.Module:
    """ResNet-18 (He et al. 2016)."""
    return _resnet(basic, [2, 2, 2, 2], 1)


def resnet50() -> nn.Module:
    """ResNet-50 (He et al. 2016), v1.5."""
    return _resnet(bottleneck, [3, 4, 6, 3], 4)


def _classifier(features: int, dropout: bool) -> list[nn.Module]:
    drop = [nn.Dropout()] if dropout else []
    layers: list[nn.Module] = [nn.Flatten(), *drop, nn.Linear(features, 4096), nn.ReLU(inplace=True)]
    return [*layers, *drop, nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 1000)]


def vgg16() -> nn.Module:
    """VGG16, configuration D (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    cin = 3
    for depth, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(depth):
            layers += [nn.Conv2d(cin, width, 3, padding=1), nn.ReLU(inplace=True)]
            cin = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *_classifier(512 * 7 * 7, False))


def alexnet() -> nn.Module:
    """AlexNet as torchvision has it: one tower (Krizhevsky 2014)."""
    layers: list[nn.Module] = []
    shapes = (
        (3, 64, 11, 4, 2),
        (64, 192, 5, 1, 2),
        (192, 384, 3, 1, 1),
        (384, 256, 3, 1, 1),
        (256, 256, 3, 1, 1),
    )
    for index, shape in enumerate(shapes):
        layers += [nn.Conv2d(*shape), nn.ReLU(inplace=True)]
        if index in (0, 1, 4):
            layers.append(nn.MaxPool2d(3, 2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(6), *_classifier(256 * 6 * 6, True))


class Inception(nn.Module):
    """Four branches, joined along channels."""

    def __init__(self, cin: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int):
        super().__init__()
        self.one = _plain(cin, one, 1)
        self.three = nn.Sequential(_plain(cin, three[0], 1), _plain(*three, 3))
        self.five = nn.Sequential(_plain(cin, five[0], 1), _plain(*five, 5))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), _plain(cin, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def _plain(cin: int, cout: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, kernel // 2), nn.ReLU(inplace=True))


def inception_v1() -> nn.Module:
    """GoogLeNet (Szegedy et al. 2015), without its auxiliary heads and local response norms."""
    down = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    return nn.Sequential(
        _plain(3, 64, 7, 2), nn.MaxPool2d(**down),
        _plain(64, 64, 1), _plain(64, 192, 3), nn.MaxPool2d(**down),
        Inception(192, 64, (96, 128), (16, 32), 32), Inception(256, 128, (128, 192), (32, 96), 64),
        nn.MaxPool2d(**down),
        Inception(480, 192, (96, 208), (16, 48), 64), Inception(512, 160, (112, 224), (24, 64), 64),
        Inception(512, 128, (128, 256), (24, 64), 64), Inception(512, 112, (144, 288), (32, 64), 64),
        Inception(528, 256, (160, 320), (32, 128), 128), nn.MaxPool2d(**down),
        Inception(832, 256, (160, 320), (32, 128), 128), Inception(832, 384, (192, 384), (48, 128), 128),
        *head(1024),
    )  # fmt: skip


def mobilenet_v1() -> nn.Module:
    """MobileNet, width 1.0 (Howard et al. 2017)."""
    layers: list[nn.Module] = [conv(3, 32, 3, 2)]
    cin = 32
    strides = {128: (2, 1), 256: (2, 1), 512: (2, 1, 1, 1, 1, 1), 1024: (2, 1)}
    for width, steps in {64: (1,), **strides}.items():
        for stride in steps:
            layers += [conv(cin, cin, 3, stride, groups=cin), conv(cin, width, 1)]
            cin = width
    return nn.Sequential(*layers, *head(cin))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; with a shortcut where the shape stays."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int):
        super().__init__()
        inner = cin * expansion
        expand = [conv(cin, inner, 1)] if expansion > 1 else []
        project = [conv(inner, inner, 3, stride, groups=inner), conv(inner, cout, 1, relu=False)]
        self.body = nn.Sequential(*expand, *project)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet_v2() -> nn.Module:
    """MobileNetV2, width 1.0 (Sandler et al. 2018); its ReLU6 are ReLUs here, which cost the same."""
    layers: list[nn.Module] = [conv(3, 32, 3, 2)]
    cin = 32
    for expansion, width, depth, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):  # fmt: skip
        for index in range(depth):
            layers.append(InvertedResidual(cin, width, 1 if index else first, expansion))
            cin = width
    return nn.Sequential(*layers, conv(cin, 1280, 1), *head(1280))


ZOO: dict[str, Callable[[], nn.Module]] = {
    builder.__name__: builder
    for builder in (alexnet, inception_v1, mobilenet_v1, mobilenet_v2, resnet18, resnet50, vgg16)
}
