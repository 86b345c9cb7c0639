"""The mobile space: MBConv blocks whose kernel, expansion, number and width are chosen."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.search.relaxation import entropies
from ehdnas.search.spaces.base import Architecture, CellGraph, NetworkShape, Part, Parts, Supernet
from ehdnas.search.spaces.mobile import distribution, genotype, parts
from ehdnas.search.spaces.mobile.layout import GRAPHS, LAYERS, OPTIONS, SKIP, STAGES
from ehdnas.search.spaces.mobile.network import MobileNetwork
from ehdnas.search.spaces.mobile.supernet import MobileSupernet
from ehdnas.search.spaces.options import OptionsSpace
from ehdnas.search.spaces.reading import read_json, require_short


class MobileSpace(OptionsSpace):
    """Six stages of one to four MBConv blocks: 2.5e21 architectures.

    For each block kernel 3, 5 or 7 and expansion 3 or 6, in the manner of ProxylessNAS (arXiv 1812.00332) and
    FBNet (arXiv 1812.03443); for each stage its depth, its width and, as in MnasNet (arXiv 1807.11626),
    whether its blocks have squeeze-and-excitation, as those of MobileNetV3 (arXiv 1905.02244) do. Layout,
    activation and medium widths are those of MobileNetV2, which is in the space.

    A stage's layers that are skipped are its last, so that no network has two genotypes.

    `NetworkShape.channels` is what leaves the stem: 16 as published. `cells` counts the layers a network can
    have, which are always the same; the genotype says how many it has.
    """

    name = "mobile"
    options = OPTIONS
    sizes = MappingProxyType(
        {
            data: (8 if data == "digits" else 16, LAYERS)
            for data in ("digits", "cifar10", "images", "imagenet")
        }
    )

    @property
    def reference(self) -> Architecture:
        """MOBILENET_V2, the published network at 16 channels, 224×224 pixels and 1000 classes."""
        return self.parse("MOBILENET_V2")

    def named(self) -> dict[str, Architecture]:
        """Return MOBILENET_V2."""
        return {name: self.parse(name) for name in genotype.PUBLISHED}

    @property
    def graphs(self) -> tuple[CellGraph, ...]:
        """The stages, each a chain of layers."""
        return GRAPHS

    def is_valid(self, architecture: Architecture) -> bool:
        """Return whether every slot takes one of its options, and layers skipped are their stage's last."""
        return super().is_valid(architecture) and all(
            distribution.ordered([architecture.choices[slot] for slot in stage.layer_slots])
            for stage in STAGES
        )

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return an architecture drawn stage by stage: every depth as likely, then every operation."""
        choices = list(super().sample(rng).choices)
        for stage in STAGES:
            slots = list(stage.layer_slots)
            depth = int(rng.integers(1, stage.layers + 1)) if self._can_skip else stage.layers
            for layer, slot in enumerate(slots):
                operations = [choice for choice in self._allowed[slot] if choice != SKIP]
                choices[slot] = operations[int(rng.integers(len(operations)))] if layer < depth else SKIP
        return Architecture(tuple(choices))

    def initial_logits(self) -> Tensor:
        """Return the logits [33, 7] of what `sample` draws: 0, but for `skip`, so that depths are even."""
        logits = torch.zeros(self.slots, self.choices)
        for stage in STAGES:
            for layer, slot in enumerate(stage.layer_slots[1:], start=1):
                operations = sum(choice != SKIP for choice in self._allowed[slot])
                # Of the depths that are left, layer to all, one ends here.
                logits[slot, SKIP] = np.log(operations / (stage.layers - layer))
        return logits

    def relax(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return straight-through gates [33, 7] of a valid architecture drawn from `logits`."""
        gates = super().relax(logits, generator)
        return torch.cat([
            rows for stage in STAGES
            for rows in (gates[stage.first_slot : stage.layer_slots[0]],
                         distribution.cut_off(gates[stage.layer_slots[0] : stage.layer_slots[-1] + 1]))
        ])  # fmt: skip

    def most_likely(self, logits: Tensor) -> Architecture:
        """Return the architecture of the highest probability under `logits`."""
        log = self.masked(logits).log_softmax(dim=1)
        choices = log.argmax(dim=1).tolist()
        for stage in STAGES:
            slots = list(stage.layer_slots)
            choices[slots[0] : slots[-1] + 1] = distribution.most_likely(log[slots])
        return Architecture(tuple(choices))

    def log_prob(self, architecture: Architecture, logits: Tensor) -> Tensor:
        """Return the log-probability, a scalar, that `relax` draws this architecture; −∞ if not valid."""
        if not self.is_valid(architecture):
            return logits.new_full((), -torch.inf)
        log, choices = self.masked(logits).log_softmax(dim=1), architecture.choices
        total = logits.new_zeros(())
        for stage in STAGES:
            own = [stage.width_slot, stage.squeeze_slot]
            total = total + sum(log[slot, choices[slot]] for slot in own)
            slots = list(stage.layer_slots)
            total = total + distribution.log_prob([choices[slot] for slot in slots], log[slots])
        return total

    def entropy(self, logits: Tensor) -> float:
        """Return the entropy in nats over the slots that have several options left, drawn or not."""
        log = self.masked(logits.detach()).log_softmax(dim=1)
        total = 0.0
        for stage in STAGES:
            layers = distribution.entropy(log[list(stage.layer_slots)])
            total += float(entropies(log[[stage.width_slot, stage.squeeze_slot]]).sum() + layers)
        return total / max(1, len(self._open))

    def parse(self, text: str) -> Architecture:
        """Return the architecture of a published name, 33 digits, or JSON."""
        text = require_short(text)
        text = genotype.PUBLISHED.get(text, text)
        if text.startswith("{"):
            return Architecture(genotype.from_stages(read_json(text).get("stages")))
        if not text.isdecimal():
            close = nearest(text, genotype.PUBLISHED)
            hint = close.rstrip("?") if close.startswith("; did") else ""
            raise UsageError(
                f"'{text[:60]}' is not a genotype of the mobile space{hint}; give {genotype.EXAMPLE}"
            )
        if len(text) != self.slots:
            raise UsageError(
                f"genotype of {len(text)} digits: a genotype of the mobile space has {self.slots}"
            )
        return self.checked(tuple(map(int, text)), text)

    def genotype(self, architecture: Architecture) -> dict[str, Any]:
        """Return {"stages": [{"width": ..., "squeeze_excite": ..., "layers": [operation, ...]} * 6]}."""
        return {"stages": genotype.to_stages(architecture.choices)}

    def check_shape(self, shape: NetworkShape) -> None:
        """Raise UsageError unless channels are even, images not too small, and cells the space's."""
        least = 32 if shape.stem == "imagenet" else 8
        if min(shape.image[1:]) < least:
            raise UsageError(
                f"images of {shape.image[1]}x{shape.image[2]}: with the {shape.stem} stem the mobile space "
                f"needs sides of at least {least}; set image_size"
            )
        if shape.channels < 2 or shape.channels % 2:
            raise UsageError(
                f"{shape.channels} channels: the mobile space needs an even number, 16 as published"
            )
        if shape.cells != LAYERS:
            raise UsageError(
                f"{shape.cells} cells: a network of the mobile space has up to {LAYERS} layers, as its "
                f"genotype says; leave cells out, or set {LAYERS}"
            )

    def network(self, architecture: Architecture, shape: NetworkShape, auxiliary: bool = False) -> nn.Module:
        """Return the network of an architecture, with or without an auxiliary head.

        Raises:
            UsageError: the architecture is not valid, or networks of the shape cannot be built.
        """
        return self._body(architecture, shape, auxiliary)

    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return the supernet of this shape."""
        self.check_shape(shape)
        return MobileSupernet(shape)

    def parts(self, shape: NetworkShape) -> Parts:
        """Return stem and classifier as fixed, the head by its width, the pieces of blocks by theirs."""
        self.check_shape(shape)
        return parts.cut(shape)

    def cells(self, architecture: Architecture, shape: NetworkShape) -> tuple[Part, ...]:
        """Return the stages, each fed by what is before it."""
        return parts.stages(shape, architecture.choices, self._body(architecture, shape))

    @property
    def _can_skip(self) -> bool:
        return "skip" not in self._excluded

    def _body(
        self, architecture: Architecture, shape: NetworkShape, auxiliary: bool = False
    ) -> MobileNetwork:
        self.check_shape(shape)
        if not self.is_valid(architecture):
            raise UsageError(
                f"{architecture.choices}: in the mobile space, layers skipped are a stage's last"
            )
        return MobileNetwork(architecture.choices, shape, auxiliary)
