"""Networks of the kinds people deploy, their batch norms not the identity, and a reader of TFLite files."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F


class SeparableConv(nn.Sequential):
    def __init__(self, channels, kernel, stride, dilation=1):
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )


class FactorizedReduce(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.even = nn.Conv2d(cin, cout // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(cin, cout - cout // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x):
        x = F.relu(x)
        return self.bn(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))


class DartsLike(nn.Module):
    """Every operation of DARTS at both strides, pools with and without a batch norm of their own."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.normal = nn.ModuleList(
            [
                SeparableConv(8, 3, 1),
                SeparableConv(8, 5, 1, 2),
                nn.MaxPool2d(3, 1, 1),
                nn.Sequential(
                    nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.BatchNorm2d(8, affine=False)
                ),
            ]
        )
        self.reduce = nn.ModuleList(
            [
                SeparableConv(8, 5, 2),
                SeparableConv(8, 3, 2, 2),
                FactorizedReduce(8, 8),
                nn.MaxPool2d(3, 2, 1),
                nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            ]
        )
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        terms = [operation(x) for operation in self.normal]
        x = terms[0] + terms[1] + terms[2] + terms[3]
        terms = [operation(x) for operation in self.reduce]
        x = torch.cat([terms[0] + terms[1] + terms[2], terms[3] + terms[4]], 1)
        return self.classifier(F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1))


class ResNetBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.shortcut = nn.Sequential(nn.Conv2d(3, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
        self.relu = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return self.classifier(self.relu(out).mean([2, 3]))


class MobileNetV2Like(nn.Sequential):
    """A strided stem, an inverted bottleneck, and a classifier on the flattened image, not on its mean."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 24, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU6(),
            nn.Conv2d(24, 24, 3, 2, 1, groups=24, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU6(),
            nn.Conv2d(24, 4, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(4 * 4 * 4, 10),
        )


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        scale = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(scale)


class MobileNetV3Like(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.Hardswish(),
            nn.Conv2d(16, 16, 5, 1, 2, groups=16, bias=False),
            nn.BatchNorm2d(16),
            SqueezeExcite(16),
            nn.Hardswish(),
            nn.AvgPool2d(2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        )


class Oddments(nn.Module):
    """What the usual blocks leave out: padding, groups, means that count padding, constants, gates."""

    def __init__(self):
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, 3, 1, padding="same", groups=2)
        self.gate = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 8).view(1, 8, 1, 1))
        self.stem = nn.Conv2d(3, 4, 4, 2)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x):
        x = self.grouped(self.stem(F.pad(x, (2, 1, 0, 3))))
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2, 1) * self.scale - 0.5
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True).flatten(1)))
        x = (1 - x * gate.view(-1, 8, 1, 1))[:, :, ::2, 1:]
        return self.classifier(torch.clamp(x, 0, 6).mean((2, 3)))


NETWORKS = [DartsLike, ResNetBlock, MobileNetV2Like, MobileNetV3Like, Oddments]


def make(kind):
    """Return a seeded network in eval mode whose batch norms hold statistics that are not the identity's."""
    torch.manual_seed(0)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.3, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


@pytest.fixture(params=NETWORKS, ids=lambda kind: kind.__name__)
def network(request):
    return make(request.param)


@pytest.fixture
def darts_like():
    return make(DartsLike)


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((5, 3, 16, 16)).astype(np.float32)


@pytest.fixture
def operators_of():
    """Return the function that lists a TFLite file's operators, as they stand in the file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    def read(path):
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
        return [operator["op_name"] for operator in interpreter._get_ops_details()]

    return read
