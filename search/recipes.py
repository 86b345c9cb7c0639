"""Recipes: how long, how fast and with what augmentation a data set is searched and trained on."""

from __future__ import annotations

from typing import Literal

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
    skip_beside: float = Field(default=1.0, ge=0)
    """Weight of a skip beside every operation of the supernet of the DARTS space; 0 has none.

    With it a supernet trains sooner, and a choice of skip gains nothing by that: the auxiliary skip of DARTS-
    (Chu et al., ICLR 2021, equation 6). There it decays to 0; here it stays, since a single-path search chose
    skips again as it fell. Networks that are found do not have it.
    """
    relaxation: Literal["single", "mixed", "partial"] = "single"
    """What a step of the search computes: one path, or all operations mixed as in DARTS or PC-DARTS."""
    unrolled: bool = False
    """Whether the architecture's gradient looks one step of the weights ahead (DARTS, equation 7)."""
    drop_path: float = Field(default=0.2, ge=0, lt=1)
    auxiliary_weight: float = Field(default=0.4, ge=0)
    flip: bool = True
    cutout: bool = True
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights, which then are what is trained; 0 takes none."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of mixup (Zhang et al., ICLR 2018); 0 mixes nothing."""
    micro_batches: int = Field(default=1, ge=1)
    """Equal parts that a step's batch is computed in, each with batch norm statistics of its own."""


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
# Images of 128 pixels or more, as DARTS trains on ImageNet (appendix A.3): 250 epochs in batches of 128 from
# a rate of 0.1, a tenth of the weight decay, label smoothing; neither drop-path nor cutout.
_IMAGENET = Recipe(
    train_epochs=250,
    train_batch_size=128,
    train_learning_rate=0.1,
    weight_decay=3e-5,
    drop_path=0.0,
    cutout=False,
    label_smoothing=0.1,
)
_RECIPES = {
    "digits": _DIGITS,
    "cifar10": Recipe(),
    "images": Recipe(train_epochs=250),
    "imagenet": _IMAGENET,
}


def recipe_for(dataset: str) -> Recipe:
    """Return the recipe of a data set by its kind: `digits`, `cifar10`, `images`, `imagenet` (large ones)."""
    return _RECIPES[dataset]
