"""Predictors that are fitted quickly."""

import pytest

from ehdnas.search.predictor import embedding, regression


@pytest.fixture(scope="module")
def brief():
    """Fits that take fewer steps than usual."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_STEPS", 40)
        patch.setattr(regression, "_ROUNDS", (10, 5, 5))
        yield
