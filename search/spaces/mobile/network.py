"""Mobile networks: a stem, the stages of one architecture, a head. At their own width: nothing is masked."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.spaces.blocks import AuxiliaryHead
from ehdnas.search.spaces.mobile.blocks import BlockSize, MBConv, conv_bn
from ehdnas.search.spaces.mobile.layout import OPERATIONS, SKIP, SQUEEZED, STAGES, Stage, entering

_AUXILIARY_AT = 3  # after the last stage before the resolution is halved for the last time
HEAD = 80
"""Channels of the last convolution in `NetworkShape.channels`, as in MobileNetV2."""


class StageLayers(nn.Module):
    """The layers that one architecture has in one stage."""

    def __init__(self, blocks: Sequence[MBConv]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: Tensor, drop: float = 0.0) -> Tensor:
        """Map [n, cin, h, w] to [n, cout, ⌈h / stride⌉, ⌈w / stride⌉]."""
        for layer in self.layers:
            x = layer(x, drop)
        return x


class MobileNetwork(nn.Module):
    """A final network: [n, c, h, w] to logits, or (logits, auxiliary logits) while training with the head."""

    def __init__(self, choices: Sequence[int], shape: NetworkShape, auxiliary: bool) -> None:
        super().__init__()
        self.stem = stem(shape)
        self.stages = nn.ModuleList(StageLayers(_blocks(stage, choices, shape)) for stage in STAGES)
        self.head = head(shape, STAGES[-1].channels(shape, choices[STAGES[-1].width_slot]))
        self.pool = pool()
        self.classifier = nn.Linear(HEAD * shape.channels, shape.classes)
        self.auxiliary: AuxiliaryHead | None = None
        if auxiliary:
            at = STAGES[_AUXILIARY_AT]
            _, height, width = sizes(shape)[_AUXILIARY_AT + 1]
            channels = at.channels(shape, choices[at.width_slot])
            self.auxiliary = AuxiliaryHead(channels, (height, width), shape.classes)
        self.drop_path = 0.0

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map images [n, c, h, w] to logits [n, classes]."""
        x, auxiliary = self.stem(x), None
        for number, stage in enumerate(self.stages):
            x = stage(x, self.drop_path)
            if number == _AUXILIARY_AT and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(x)
        logits: Tensor = self.classifier(self.pool(self.head(x)))
        return logits if auxiliary is None else (logits, auxiliary)


def stem(shape: NetworkShape) -> nn.Sequential:
    """Return what is before the first stage: [n, c, h, w] to [n, C, h, w], or h/2 and w/2 for ImageNet."""
    width, stride = 2 * shape.channels, 2 if shape.stem == "imagenet" else 1
    return nn.Sequential(
        conv_bn(shape.image[0], width, 3, stride),
        conv_bn(width, width, 3, groups=width),
        conv_bn(width, shape.channels, active=False),
    )


def head(shape: NetworkShape, channels: int) -> nn.Sequential:
    """Return the convolution after the last stage, [n, channels, h, w] to [n, 80·C, h, w]."""
    return conv_bn(channels, HEAD * shape.channels)


def pool() -> nn.Sequential:
    """Return the mean over height and width, [n, c, h, w] to [n, c]."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def block_size(
    stage: Stage, layer: int, choice: int, shape: NetworkShape, width_in: int, width_out: int
) -> BlockSize:
    """Return the size of a layer's block; `width_in` is the width of the stage that feeds it."""
    expansion, kernel = OPERATIONS[choice]
    first = layer == 0
    return BlockSize(
        cin=entering(stage.number, shape, width_in) if first else stage.channels(shape, width_in),
        hidden=stage.hidden(shape, layer, expansion),
        cout=stage.channels(shape, width_out),
        kernel=kernel,
        stride=stage.stride(shape) if first else 1,
    )


def sizes(shape: NetworkShape) -> list[tuple[int, int, int]]:
    """Return the [stride, h, w] so far, of what enters each stage, and of what leaves the last."""
    total, height, width = (2 if shape.stem == "imagenet" else 1), *shape.image[1:]
    found = [(total, -(-height // total), -(-width // total))]
    for stage in STAGES:
        total *= stage.stride(shape)
        found.append((total, -(-height // total), -(-width // total)))
    return found


def _blocks(stage: Stage, choices: Sequence[int], shape: NetworkShape) -> list[MBConv]:
    width = choices[stage.width_slot]
    before = choices[STAGES[stage.number - 1].width_slot] if stage.number else width
    blocks = []
    for layer, slot in enumerate(stage.layer_slots):
        if choices[slot] != SKIP:
            size = block_size(stage, layer, choices[slot], shape, width if layer else before, width)
            blocks.append(MBConv(size, layer > 0, choices[stage.squeeze_slot] == SQUEEZED))
    return blocks
