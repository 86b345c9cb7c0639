"""Parity: does the exported file, in its own interpreter, agree with the network?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.artifact import Artifact, Parity, Tolerance
from ehdnas.core.errors import DataError, ExportError, ParityError
from ehdnas.exporters.parity.difference import accuracy_breach, breaches, difference
from ehdnas.exporters.parity.run import Outcome, run_artifact

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float32]

_BATCH = 64


class Reference:
    """A network and the images it is judged on; it is run on them once, whatever is compared with it.

    `images` are normalised, (n, C, H, W), one array for each input; `labels` (n) are the classes, if known.
    DataError says that the two differ in number.
    """

    def __init__(
        self, model: nn.Module, images: Array | Sequence[Array], labels: NDArray[np.int64] | None = None
    ) -> None:
        self.model = model
        self.images: list[Array] = [images] if isinstance(images, np.ndarray) else list(images)
        self.labels = labels
        if labels is not None and len(labels) != len(self.images[0]):
            raise DataError(f"{len(labels)} labels for {len(self.images[0])} images; give one for each")

    @cached_property
    def outputs(self) -> Array:
        """What the network gives, in eval mode; the network is left as it was found."""
        import torch

        from ehdnas.core.graph import eval_mode

        parts = []
        with eval_mode(self.model), torch.no_grad():
            first = next(self.model.parameters(), None)
            device = torch.device("cpu") if first is None else first.device
            for i in range(0, len(self.images[0]), _BATCH):
                made = self.model(*(torch.as_tensor(one[i : i + _BATCH]).to(device) for one in self.images))
                if not isinstance(made, torch.Tensor):
                    raise ExportError(
                        f"the network returns a {type(made).__name__}; it must return the logits alone in "
                        "eval mode"
                    )
                parts.append(made.cpu())
        return np.asarray(torch.cat(parts).numpy(), np.float32)

    def require_sound(self) -> None:
        """Return if there are images and what the network gives for them is numbers.

        Raises:
            DataError: there are no images.
            ExportError: the network does not return one tensor, or not of numbers.
        """
        if not self.images or not len(self.images[0]):
            raise DataError("no images to compare file and network on; give at least one")
        images = len(self.outputs)
        broken = images - int(np.isfinite(self.outputs).reshape(images, -1).all(1).sum())
        if broken:
            raise ExportError(
                f"the network's outputs are no numbers for {broken} of {images} images; check its weights, "
                "and that the images are finite"
            )

    def accuracy(self, outputs: Array) -> float | None:
        """Return the share of images whose highest output is their label; None without labels."""
        if self.labels is None or outputs.ndim != 2:
            return None
        return float((outputs.argmax(1) == self.labels).mean())


def check_parity(artifact: Artifact, reference: Reference, tolerance: Tolerance) -> Parity:
    """Return how the file's outputs compare with the network's.

    Raises:
        ExportError, DataError: as `run_artifact`; a difference, however large, raises nothing.
    """
    return compare(artifact.path, run_artifact(artifact.path, reference.images), reference, tolerance)


def compare(path: Path, outcome: Outcome, reference: Reference, tolerance: Tolerance) -> Parity:
    """Return how outputs already taken from the file at `path` compare with the network's."""
    expected, actual = reference.outputs, outcome.outputs
    if actual.shape != expected.shape:
        raise ExportError(
            f"{path} gives outputs of shape {actual.shape}, its network {expected.shape}; export it again"
        )
    found = difference(actual, expected)
    failures = breaches(found, tolerance)
    before, after = reference.accuracy(expected), reference.accuracy(actual)
    if before is not None and after is not None:
        failures += accuracy_breach(before, after, len(expected), tolerance)
    return Parity(
        images=len(expected),
        interpreter=outcome.interpreter,
        partitions=outcome.facts.get("partitions"),
        plain_operators=outcome.facts.get("plain_operators", {}),
        max_difference=found.largest,
        mean_difference=found.mean,
        largest_output=found.largest_output,
        noise=found.noise,
        top1_agreement=found.agreement,
        accuracy_before=before,
        accuracy_after=after,
        accuracy_images=0 if before is None else len(expected),
        tolerance=tolerance,
        passed=not failures,
        failures=failures,
    )


def require_parity(artifact: Artifact) -> None:
    """Return if the artifact was checked and agrees with its network.

    Raises:
        ParityError: it was never checked, or differs by more than its tolerance.
    """
    parity = artifact.manifest.parity
    if parity is None:
        raise ParityError(f"{artifact.path} was never compared with its network; run the parity check first")
    if parity.passed:
        return
    where = f"; they part at {parity.fault}" if parity.fault else ""
    mend = "; try --finetune-steps 500" if artifact.manifest.precision == "int8" else ""
    raise ParityError(
        f"{artifact.path} disagrees with its network on {parity.images} images: "
        f"{'; '.join(parity.failures)}{where}; do not deploy it{mend}"
    )
