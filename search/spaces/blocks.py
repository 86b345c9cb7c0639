"""What networks of several spaces are built with: stems, the auxiliary head, drop-path."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ehdnas.search.spaces.base import NetworkShape

Gates = Sequence[Tensor]
"""By slot, the gate of the operation that runs there: a scalar on the device of the images."""


def gates_of(gates: Tensor, choices: Sequence[int], images: Tensor) -> Gates | None:
    """Return by slot the gate [] of its choice, beside the images; None where no gradient is wanted.

    They are moved at once: a copy for each edge would keep a GPU waiting.
    """
    if not gates.requires_grad:
        return None
    chosen = gates[range(len(choices)), choices]
    return chosen.to(images.device, non_blocking=True).unbind()


class AuxiliaryHead(nn.Module):
    """The auxiliary classifier that DARTS trains with, its pooling fitted to small feature maps."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        # 8x8 maps (CIFAR) and 7x7 maps (ImageNet) both come out as 2x2, as in the published heads.
        pool = (min(5, size[0]), min(5, size[1]))
        stride = 3 if min(size) >= 8 else 2
        kernel = tuple(min(2, (side - window) // stride + 1) for side, window in zip(size, pool, strict=True))
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(pool, stride, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, (kernel[0], kernel[1]), bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, channels, h, w] to logits [n, classes]."""
        out: Tensor = self.classifier(self.features(x).flatten(1))
        return out


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Drop whole samples of an edge (Larsson, Maire, Shakhnarovich, ICLR 2017), scaling up the rest."""
    keep = 1 - probability
    mask = x.new_empty(len(x), 1, 1, 1).bernoulli_(keep)
    return x * (mask / keep)


def cifar_stem(shape: NetworkShape, width: int) -> nn.ModuleList:
    """Return the one stem that keeps the resolution: [n, c, h, w] to [n, width, h, w]."""
    convolution = nn.Conv2d(shape.image[0], width, 3, padding=1, bias=False)
    return nn.ModuleList([nn.Sequential(convolution, nn.BatchNorm2d(width))])


def imagenet_stem(shape: NetworkShape) -> nn.ModuleList:
    """Return DARTS's two stems: [n, c, h, w] to [n, C, h/4, w/4], and that to [n, C, h/8, w/8]."""
    width = shape.channels
    first = nn.Sequential(
        nn.Conv2d(shape.image[0], width // 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width // 2),
        nn.ReLU(),
        nn.Conv2d(width // 2, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
    )
    second = nn.Sequential(
        nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)
    )
    return nn.ModuleList([first, second])
