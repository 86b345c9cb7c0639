"""The predictors by name: the honest baselines, the published one, and the project's own."""

from __future__ import annotations

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.search.predictor.base import Identity, Predictor
from ehdnas.search.predictor.baselines import (
    ConstantPredictor,
    FlopsPredictor,
    LinearPredictor,
    OpSumPredictor,
)
from ehdnas.search.predictor.embedding import EmbeddingPredictor
from ehdnas.search.predictor.ensemble import EnsemblePredictor
from ehdnas.search.predictor.facts import SpaceFacts

METHODS: dict[str, type[Predictor]] = {
    "constant": ConstantPredictor,
    "flops": FlopsPredictor,
    "op-sum": OpSumPredictor,
    "linear": LinearPredictor,
    "embedding": EmbeddingPredictor,
    "ehdnas": EnsemblePredictor,
}


def make_predictor(identity: Identity, facts: SpaceFacts) -> Predictor:
    """Return an unfitted predictor of the method that the identity names.

    Raises:
        UsageError: there is no such method.
    """
    if identity.method not in METHODS:
        raise UsageError(f"no predictor '{identity.method}'{nearest(identity.method, list(METHODS))}")
    return METHODS[identity.method](identity, facts)
