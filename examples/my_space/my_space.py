"""A search space of one's own: six residual layers, an operation chosen for each.

`OptionsSpace` brings all that has to do with choosing; what is left to say is what the choices are, and the
networks. `pyproject.toml` registers the class under the entry point `ehdnas.spaces`, and every command takes
`--space residual` from then on. For rules between slots, see `ehdnas.search.spaces.mobile`.
"""

from __future__ import annotations

from torch import Tensor, nn

from ehdnas.core.errors import UsageError
from ehdnas.search.ops import build_operation
from ehdnas.search.spaces.base import Architecture, Decision, NetworkShape, Part, Parts, Supernet
from ehdnas.search.spaces.options import OptionsSpace

OPERATIONS = ("nor_conv_1x1", "nor_conv_3x3", "sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3")
LAYERS, HALVED_AT = 6, 3


class ResidualSpace(OptionsSpace):
    """Six layers, each an operation added to what it is fed; the image is halved before the fourth."""

    name = "residual"
    options = (OPERATIONS,) * LAYERS

    @property
    def reference(self) -> Architecture:
        """Dense 3×3 convolutions throughout."""
        return Architecture((OPERATIONS.index("nor_conv_3x3"),) * LAYERS)

    def check_shape(self, shape: NetworkShape) -> None:
        """Raise UsageError unless the image can be halved."""
        _, height, width = shape.image
        if height % 2 or width % 2:
            raise UsageError(f"images of {height}x{width}: space 'residual' needs even sides; set image_size")

    def network(self, architecture: Architecture, shape: NetworkShape, auxiliary: bool = False) -> nn.Module:
        """Return the network of an architecture; this space has no auxiliary head."""
        self.check_shape(shape)
        names = [self.choice_name(*at) for at in enumerate(architecture.choices)]
        layers = [Residual(build_operation(name, shape.channels, 1, affine=True)) for name in names]
        before, after = layers[:HALVED_AT], layers[HALVED_AT:]
        return nn.Sequential(stem(shape), *before, nn.MaxPool2d(2), *after, classifier(shape))

    def supernet(self, shape: NetworkShape) -> Supernet:
        """Return every operation of every layer, with weights that all architectures share."""
        self.check_shape(shape)
        return ResidualSupernet(shape)

    def parts(self, shape: NetworkShape) -> Parts:
        """Return what every network has, and what each operation adds: a network's cost is their sum."""
        channels, (_, height, width) = shape.channels, shape.image
        chosen: dict[Decision, tuple[Part, ...]] = {}
        for layer in range(LAYERS):
            shrink = 1 if layer < HALVED_AT else 2
            image = (channels, height // shrink, width // shrink)
            for choice, name in enumerate(OPERATIONS):
                operation = Residual(build_operation(name, channels, 1, affine=True))
                chosen[layer, choice] = (Part(f"layer{layer}.{name}", operation, (image,)),)
        fixed = (
            Part("stem", stem(shape), (shape.image,)),
            Part("pool", nn.MaxPool2d(2), ((channels, height, width),)),
            Part("classifier", classifier(shape), ((channels, height // 2, width // 2),)),
        )
        return Parts(fixed, chosen)


class Residual(nn.Module):
    """What an operation gives, added to what it is fed."""

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, C, h, w] to the same."""
        out: Tensor = x + self.operation(x)
        return out


class ResidualSupernet(Supernet):
    """All operations; a forward pass computes those that the gates select."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.stem, self.pool, self.classifier = stem(shape), nn.MaxPool2d(2), classifier(shape)
        # Not affine, so that no operation wins by a scale of its own.
        self.operations = nn.ModuleDict({
            f"{layer}_{choice}": build_operation(name, shape.channels, 1, affine=False)
            for layer in range(LAYERS)
            for choice, name in enumerate(OPERATIONS)
        })  # fmt: skip

    def forward(self, images: Tensor, gates: Tensor) -> Tensor:
        """Return logits [n, classes] of the architecture that `gates` [6, 5] select."""
        x = self.stem(images)
        for layer, choice in enumerate(gates.argmax(dim=1).tolist()):
            x = self.pool(x) if layer == HALVED_AT else x
            # Times the gate, which is 1, so that gradients reach it: inside the residual, since the batch
            # norms further on take out the scale of everything, but not that of one term beside another.
            x = x + self.operations[f"{layer}_{choice}"](x) * gates[layer, choice]
        out: Tensor = self.classifier(x)
        return out


def stem(shape: NetworkShape) -> nn.Module:
    """Return [n, c, h, w] to [n, C, h, w]."""
    convolution = nn.Conv2d(shape.image[0], shape.channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(shape.channels))


def classifier(shape: NetworkShape) -> nn.Module:
    """Return [n, C, h, w] to logits [n, classes]."""
    return nn.Sequential(
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shape.channels, shape.classes)
    )
