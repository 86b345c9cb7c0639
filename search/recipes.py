"""Recipes: how long, how fast and with what augmentation a data set is searched and trained on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """The hyper-parameters of a search and of the training that follows it.

    The optimisers and their constants are those of DARTS (Liu, Simonyan, Yang, ICLR 2019, appendix A):
    SGD with momentum 0.9 under a cosine schedule for weights, Adam (0.5, 0.999) for the architecture.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    search_epochs: int = Field(default=50, ge=1)
    train_epochs: int = Field(default=600, ge=1)
    batch_size: int = Field(default=64, ge=1)
    train_batch_size: int = Field(default=96, ge=1)
    learning_rate: float = Field(default=0.025, gt=0)
    train_learning_rate: float = Field(default=0.025, gt=0)
    weight_decay: float = Field(default=3e-4, ge=0)
    momentum: float = 0.9
    clip: float = 5.0
    architecture_learning_rate: float = Field(default=3e-3, gt=0)
    architecture_weight_decay: float = Field(default=1e-3, ge=0)
    drop_path: float = Field(default=0.2, ge=0, lt=1)
    auxiliary_weight: float = Field(default=0.4, ge=0)
    flip: bool = True
    cutout: bool = True


# Digits are some 1,440 images of 8x8 pixels: small batches and a higher rate for the architecture, since a
# search has only a few hundred steps; no flips (a mirrored 2 is no 2) and no cutout at that size.
_DIGITS = Recipe(
    search_epochs=50,
    train_epochs=60,
    batch_size=32,
    train_batch_size=32,
    train_learning_rate=0.1,
    architecture_learning_rate=3e-2,
    drop_path=0.0,
    flip=False,
    cutout=False,
)
_RECIPES = {"digits": _DIGITS, "cifar10": Recipe(), "images": Recipe(train_epochs=250)}


def recipe_for(dataset: str) -> Recipe:
    """Return the recipe of a data set by its kind: `digits`, `cifar10` or `images`."""
    return _RECIPES[dataset]
