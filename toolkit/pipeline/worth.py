"""Whether a search is worth it: with few images, chance is larger than what tells networks apart."""

from __future__ import annotations

from ehdnas.core.accuracy import difference_error
from ehdnas.pipeline.context import Context
from ehdnas.pipeline.scoring import SCORED_ON

_ACCURACY = 0.9  # of the networks that are told apart; how good they will be is not known before
_APART = 0.02
"""Where the standard error of a difference is this, two networks that are truly this far apart are ordered
wrongly one time in six (16 %, the normal distribution beyond one deviation). At 90 % accuracy that is 450
images to judge on, half of 900."""


def warn_of_few_images(context: Context) -> None:
    """Say in one line, with the figure, where the images are too few for a search to tell networks apart."""
    images = len(context.dataset.train)
    judged_on = min(images // 2, SCORED_ON)
    error = difference_error(_ACCURACY, max(judged_on, 1))
    if error <= _APART:
        return
    space = context.space
    names = {architecture: name for name, architecture in space.named().items()}
    reference = names.get(space.reference, space.text(space.reference))
    context.reporter.warn(
        f"search: of {images} training images {judged_on} are left to judge candidates by, and chance alone "
        f"puts two networks {100 * error:.1f} points of accuracy apart (one standard error, at "
        f"{_ACCURACY:.0%}): a search can hardly tell them apart. `ehdnas train --baseline {reference}` "
        "trains a published network beside the one found; if it is as good and meets the budget, take that"
    )
