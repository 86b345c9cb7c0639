"""Handwritten digits: the 1,797 real images that come with scikit-learn, so nothing needs fetching."""

from __future__ import annotations

import numpy as np

from ehdnas.core.images.dataset import Dataset, Split, make_dataset
from ehdnas.core.images.split import TEST_SHARE, balance, stratified_split

_LEVELS = 16


def read_digits(seed: int, source: str) -> Dataset:
    """Return the digits as 8x8 images of one channel, a fifth of each class for testing, chosen by `seed`."""
    # scikit-learn takes a second to import, and only this data set needs it.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / _LEVELS)).astype(np.uint8)[..., None]
    every = Split(images, bunch.target.astype(np.int64))
    train, test = stratified_split(every.labels, TEST_SHARE, seed)
    classes = [str(name) for name in bunch.target_names]
    notes = [
        f"{len(every):,} real images; levels 0..{_LEVELS} scaled to 0..255",
        f"{len(test):,} test images, a fifth of each class, chosen by seed {seed}",
        balance(every.labels[train], classes),
    ]
    split: dict[str, list[int] | list[str]] = {"train": train.tolist(), "test": test.tolist()}
    return make_dataset("digits", classes, every.take(train), every.take(test), notes, source, split)
