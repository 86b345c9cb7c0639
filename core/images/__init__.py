"""Data sets of images as uint8 arrays, each read from a spec such as `digits` or `cifar10:PATH`."""

from ehdnas.core.images.dataset import Dataset, Split, load_data, normalise

__all__ = ["Dataset", "Split", "load_data", "normalise"]
