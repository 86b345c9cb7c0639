"""What scikit-learn makes of the same samples: a Gaussian process and tree ensembles on graph features.

Each is a `Predictor`, so that it is fitted, judged and given its interval exactly as the others are: cross
conformal, from the same five folds. They have no gradients, so a search could not use them as it uses ours.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ehdnas.search.predictor.base import Predictor
from ehdnas.search.predictor.facts import SpaceFacts
from ehdnas.search.predictor.liveness import live
from ehdnas.search.spaces.base import CellGraph

_TUNED_ON = 300


def graph_features(gates: Tensor, facts: SpaceFacts) -> np.ndarray:
    """Return what the graph says of one-hot networks [n, slots, choices], as [n, features].

    The one-hot form with dead edges out, how often each choice is live, and for each cell its depth and how
    many live edges enter each node. Where costs are known, their totals too: ours knows them as well.
    """
    alive = live(gates, facts.graphs)
    effective = gates * alive[:, :, None]
    columns = [effective.flatten(1).numpy(), effective.sum(1).numpy()]
    chosen, alive = gates.argmax(2).numpy(), alive.numpy()
    for graph in facts.graphs:
        slots = [slot for _, _, slot in graph.edges]
        columns += [effective[:, slots].sum(1).numpy(), _depth_and_fan_in(chosen, alive, graph)]
    if facts.costs is not None:
        columns += [facts.total(gates, name).numpy()[:, None] for name in facts.costs.names]
    return np.concatenate(columns, 1).astype(np.float64)


def _depth_and_fan_in(chosen: np.ndarray, alive: np.ndarray, graph: CellGraph) -> np.ndarray:
    depth, fan_in = np.zeros((2, len(chosen), graph.nodes))
    for source, target, slot in sorted(graph.edges):
        step = ~np.isin(chosen[:, slot], list(graph.identity))
        longer = np.maximum(depth[:, target], depth[:, source] + step)
        depth[:, target] = np.where(alive[:, slot] > 0, longer, depth[:, target])
        fan_in[:, target] += alive[:, slot]
    return np.column_stack([depth[:, list(graph.outputs)].max(1), fan_in])


class Rival(Predictor):
    """A regressor of scikit-learn on the standardised logarithm of the value."""

    @abstractmethod
    def regressor(self, seed: int) -> Any:
        """Return the regressor, not yet fitted."""

    def features(self, gates: Tensor) -> np.ndarray:
        """Return the one-hot form, dead edges included, and what the graph says, [n, features]."""
        return np.concatenate([gates.flatten(1).numpy(), graph_features(gates, self.facts)], 1)

    def learn(self, gates: Tensor, values: Tensor, seed: int) -> None:
        logs = values.double().log().numpy()
        self.centre, self.scale = logs.mean(), max(logs.std(), 1e-9)
        self.model = self.regressor(seed).fit(self.features(gates), (logs - self.centre) / self.scale)

    def log_value(self, gates: Tensor) -> Tensor:
        return torch.from_numpy(self.model.predict(self.features(gates)) * self.scale + self.centre)


class GraphProcess(Rival):
    """A Gaussian process of one length scale, its hyperparameters of the greatest likelihood.

    Those few are found on at most 300 of the samples, or 900 would take half a minute a fold; all samples
    are then conditioned on.
    """

    def regressor(self, seed: int) -> Any:
        kernel = ConstantKernel(1.0, (1e-2, 1e4)) * RBF(5.0, (1e-1, 1e3)) + WhiteKernel(0.1, (1e-6, 1e1))
        return make_pipeline(StandardScaler(), _Process(kernel, random_state=seed))


class _Process(GaussianProcessRegressor):
    def fit(self, features: np.ndarray, targets: np.ndarray) -> _Process:
        some = np.random.default_rng(self.random_state).permutation(len(targets))[:_TUNED_ON]
        tuned = GaussianProcessRegressor(self.kernel, random_state=self.random_state)
        self.kernel = tuned.fit(features[some], targets[some]).kernel_
        self.optimizer = None
        return super().fit(features, targets)


class ExtraTrees(Rival):
    """Extremely randomised trees (Geurts, Ernst, Wehenkel 2006)."""

    def regressor(self, seed: int) -> Any:
        return ExtraTreesRegressor(300, max_features=0.5, min_samples_leaf=1, random_state=seed)


class Boosting(Rival):
    """Gradient boosting of shallow trees, each on a part of the samples (Friedman 2002)."""

    def regressor(self, seed: int) -> Any:
        return GradientBoostingRegressor(
            n_estimators=400,
            learning_rate=0.05,
            max_depth=4,
            subsample=0.7,
            max_features=0.5,
            random_state=seed,
        )


RIVALS: dict[str, type[Rival]] = {
    "gp-graph": GraphProcess,
    "extra-trees": ExtraTrees,
    "boosting": Boosting,
}
