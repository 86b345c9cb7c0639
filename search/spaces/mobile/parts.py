"""The mobile space cut into pieces that can be costed, exported and timed alone.

Blocks are cut between their convolutions, so that a piece depends on two slots at most: with whole blocks, a
stage's first would depend on three, and there would be twice as many to trace or to time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from torch import Tensor, nn

from ehdnas.search.spaces.base import Decision, Image, NetworkShape, Part, Parts
from ehdnas.search.spaces.mobile.blocks import SqueezeExcite, conv_bn
from ehdnas.search.spaces.mobile.layout import (
    MEDIUM,
    OPERATIONS,
    SQUEEZED,
    STAGES,
    WIDTH_NAMES,
    Stage,
    entering,
)
from ehdnas.search.spaces.mobile.network import (
    HEAD,
    MobileNetwork,
    block_size,
    head,
    pool,
    sizes,
    stem,
)

_Group = tuple[tuple[Decision, ...], Part]


class _Sum(nn.Module):
    """What a residual block does besides its convolutions: one addition."""

    def forward(self, x: Tensor) -> Tensor:
        """Add once; what is added makes no difference to what it costs."""
        return x + x


def cut(shape: NetworkShape) -> Parts:
    """Return the parts of the space at a shape; parts that compute the same share one module."""
    cutter, last = _Cutter(shape), STAGES[-1]
    height, width = sizes(shape)[-1][1:]
    together: dict[tuple[Decision, ...], tuple[Part, ...]] = {}
    for stage in STAGES:
        for layer in range(stage.layers):
            for key, part in cutter.layer(stage, layer):
                together[key] = (*together.get(key, ()), part)
    for number, name in enumerate(WIDTH_NAMES):
        channels = last.channels(shape, number)
        part = Part(f"{name}.head", head(shape, channels), ((channels, height, width),))
        together[((last.width_slot, number),)] = (part,)
    classifier = nn.Sequential(pool(), nn.Linear(HEAD * shape.channels, shape.classes))
    fixed = (
        Part("stem", stem(shape), (shape.image,)),
        Part("classifier", classifier, ((HEAD * shape.channels, height, width),)),
    )
    return Parts(fixed, together=together)


def stages(shape: NetworkShape, choices: Sequence[int], body: MobileNetwork) -> tuple[Part, ...]:
    """Return the stages of a network."""
    found = []
    for stage, module, (_, height, width) in zip(STAGES, body.stages, sizes(shape), strict=False):
        before = choices[STAGES[stage.number - 1].width_slot] if stage.number else MEDIUM
        found.append(
            Part(f"stage{stage.number}", module, ((entering(stage.number, shape, before), height, width),))
        )
    return tuple(found)


class _Cutter:
    """Makes the parts of layers, each with the decisions it takes, of which the first names it."""

    def __init__(self, shape: NetworkShape) -> None:
        self.shape = shape
        self.conv_bn = cache(conv_bn)
        self.squeeze = cache(SqueezeExcite)
        self.sum = _Sum()

    def layer(self, stage: Stage, layer: int) -> Iterator[_Group]:
        """Yield the parts of one layer, whatever is chosen for it."""
        for choice in range(len(OPERATIONS)):
            yield from self._inside(stage, layer, choice)
            yield from self._outside(stage, layer, choice)

    def _inside(self, stage: Stage, layer: int, choice: int) -> Iterator[_Group]:
        """Yield what no width changes: the depthwise convolution, and squeeze-and-excitation."""
        size = block_size(stage, layer, choice, self.shape, MEDIUM, MEDIUM)
        expansion, kernel = OPERATIONS[choice]
        decision, name = (stage.layer_slots[layer], choice), f"stage{stage.number}.layer{layer}"
        fed, made = self._images(stage, layer, size.hidden)
        depthwise = self.conv_bn(size.hidden, size.hidden, kernel, size.stride, groups=size.hidden)
        yield (decision,), Part(f"{name}.depthwise_e{expansion}_k{kernel}", depthwise, (fed,))
        squeeze = Part(f"{name}.squeeze_excite_e{expansion}", self.squeeze(size.hidden), (made,))
        yield ((stage.squeeze_slot, SQUEEZED), decision), squeeze

    def _outside(self, stage: Stage, layer: int, choice: int) -> Iterator[_Group]:
        """Yield what the widths change: the convolutions into the block and out of it, and the addition."""
        expansion, _ = OPERATIONS[choice]
        decision, own = (stage.layer_slots[layer], choice), stage.width_slot
        before = own if layer else STAGES[stage.number - 1].width_slot if stage.number else None
        for width, width_name in enumerate(WIDTH_NAMES):
            size = block_size(stage, layer, choice, self.shape, width, width)
            name = f"stage{stage.number}.layer{layer}.{width_name}"
            fed = self._images(stage, layer, size.cin)[0]
            into = Part(f"{name}.expand_e{expansion}", self.conv_bn(size.cin, size.hidden), (fed,))
            if before is not None:
                yield (decision, (before, width)), into
            elif width == MEDIUM:  # the stem has one width
                yield (decision,), into
            _, made = self._images(stage, layer, size.hidden)
            out = self.conv_bn(size.hidden, size.cout, active=False)
            yield (decision, (own, width)), Part(f"{name}.project_e{expansion}", out, (made,))
            if layer:
                image = (size.cout, *made[1:])
                yield (decision, (own, width)), Part(f"{name}.sum", self.sum, (image,))

    def _images(self, stage: Stage, layer: int, channels: int) -> tuple[Image, Image]:
        """Return what is fed to the depthwise convolution of a layer and what it makes."""
        before, after = sizes(self.shape)[stage.number : stage.number + 2]
        made = (channels, *after[1:])
        return made if layer else (channels, *before[1:]), made
