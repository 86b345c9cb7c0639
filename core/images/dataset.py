"""A data set of labelled images in memory, and the one door through which every data set is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.images.split import class_counts, stratified_split
from ehdnas.core.text import nearest

_SIZES = range(8, 1025)


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images: `images` uint8 [n, h, w, c] with c 1 or 3, `labels` int64 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8 and self.images.ndim == 4 and self.images.shape[3] in (1, 3)
        assert self.labels.dtype == np.int64 and self.labels.shape == self.images.shape[:1]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """Return the images at `indices` (int64 [m]), in that order, as a copy."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for use.

    `mean` and `std` are per channel, over the training images divided by 255. `notes` are facts a person
    should know: what was resized, skipped, missing, or unbalanced. `source` is the spec it was loaded from.
    `split` says which image went where: indices into the original for `digits`, file names otherwise.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...]
    source: str
    split: dict[str, list[int] | list[str]]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image as the network sees it: (channels, height, width)."""
        _, height, width, channels = self.train.images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def halves(self, seed: int) -> tuple[Split, Split]:
        """Return the training images cut in two, class by class: (for weights, for the architecture).

        The same seed gives the same halves; a class of odd size gives its extra image to the first.

        Raises:
            DataError: a class has one training image only, so one half would lack it.
        """
        counts = class_counts(self.train.labels, len(self.classes))
        if counts.min() < 2:
            name = self.classes[int(counts.argmin())]
            raise DataError(
                f"{self.source}: class '{name}' has {counts.min()} training images, and a search needs "
                "2 or more; add images or remove the class"
            )
        weights, architecture = stratified_split(self.train.labels, 0.5, seed)
        return self.train.take(weights), self.train.take(architecture)

    def fingerprint(self) -> str:
        """Return the SHA-256 over every image, label and class name, as 64 hex digits."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for part in (self.train, self.test):
            digest.update(repr(part.images.shape).encode())
            digest.update(np.ascontiguousarray(part.images).data)
            digest.update(part.labels.astype("<i8").data)
        return digest.hexdigest()

    def split_record(self) -> dict[str, Any]:
        """Return what is needed to tell later which images were trained and tested on, ready for JSON."""
        return {"source": self.source, "sha256": self.fingerprint(), **self.split}


def make_dataset(
    name: str,
    classes: Sequence[str],
    train: Split,
    test: Split,
    notes: Sequence[str],
    source: str,
    split: dict[str, list[int] | list[str]],
) -> Dataset:
    """Return the data set made of these parts, with the mean and deviation of its training images."""
    mean, std = channel_statistics(train.images)
    return Dataset(name, tuple(classes), train, test, mean, std, tuple(notes), source, split)


def load_data(spec: str, seed: int, size: int | None = None) -> Dataset:
    """Return the data set that `spec` names: `digits`, `cifar10:PATH` or `images:PATH`.

    Training and test images are the data set's own where it says which is which; otherwise a fifth of
    each class becomes the test images, chosen by `seed`. `size` (pixels) is for `images:PATH` only.

    Raises:
        UsageError: the spec cannot be right, or `size` does not apply or is out of range.
        DataError: there is no such data at the path, or it is damaged, hostile or too large.
    """
    kind, path = require_data(spec, size)
    # Each reader is imported by the data set that needs it, and itself needs the types above.
    if kind == "digits":
        from ehdnas.core.images.digits import read_digits

        return read_digits(seed, spec)
    if kind == "cifar10":
        from ehdnas.core.images.cifar10 import read_cifar10

        return read_cifar10(path, spec)
    from ehdnas.core.images.folder import read_folder

    return read_folder(path, seed, size, spec)


def require_data(spec: str, size: int | None = None) -> tuple[str, Path]:
    """Return the kind and the path of a data set that may be there, which takes no time.

    Raises:
        UsageError: the spec cannot be right, or `size` does not apply or is out of range.
        DataError: there is nothing at the path.
    """
    kind, colon, text = spec.partition(":")
    _check_spec(spec, kind, bool(colon), text, size)
    path = Path(text).expanduser()
    if colon and not path.exists():
        raise DataError(f"{spec}: there is nothing at {path}; check the path")
    return kind, path


def normalise(images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Return `(images / 255 - mean) / std`: uint8 [n, h, w, c] to float32 [n, c, h, w], contiguous."""
    scale = (1 / (255 * np.asarray(std, np.float64))).astype(np.float32)
    shift = (np.asarray(mean, np.float64) / np.asarray(std, np.float64)).astype(np.float32)
    return np.ascontiguousarray((images * scale - shift).transpose(0, 3, 1, 2))


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel of uint8 [n, h, w, c], on a scale of 0 to 1."""
    channels = images.shape[3]
    counts = np.zeros((channels, 256), np.int64)
    # Counting levels a slice at a time is exact and never holds the images as floats.
    for start in range(0, len(images), 256):
        for channel in range(channels):
            counts[channel] += np.bincount(images[start : start + 256, ..., channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    deviation = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))
    # A channel of one value has no deviation, and is divided by one level instead.
    return tuple(mean.tolist()), tuple(np.maximum(deviation, 1 / 255).tolist())


def _check_spec(spec: str, kind: str, colon: bool, text: str, size: int | None) -> None:
    if kind not in ("digits", "cifar10", "images"):
        hint = nearest(kind, ("digits", "cifar10", "images"))
        raise UsageError(f"unknown data set '{spec}'{hint}; write digits, cifar10:PATH or images:PATH")
    if kind == "digits" and colon:
        raise UsageError(
            f"unknown data set '{spec}': digits comes with scikit-learn and takes no path; write digits"
        )
    if kind != "digits" and not text:
        raise UsageError(f"data set '{spec}' lacks its path; write {kind}:PATH")
    if size is not None and kind != "images":
        native = "8x8" if kind == "digits" else "32x32"
        raise UsageError(
            f"{kind} is {native}: an image size of {size} cannot be set; leave it out or use images:PATH"
        )
    if size is not None and size not in _SIZES:
        raise UsageError(
            f"image size {size} is out of range; give {_SIZES.start} to {_SIZES.stop - 1} pixels"
        )
