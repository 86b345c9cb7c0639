"""What a report is written from: plain values, in the names and units of the run's own files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import FiniteFloat

from ehdnas.core.artifact import Parity
from ehdnas.core.measurement import Basis, Measurement

Told = Basis | Literal["imported"]
"""How a figure came about; of an imported one that is not known."""


@dataclass(frozen=True)
class DeviceData:
    """The device, by what may be told of it: where it stands and who reaches it is not asked for."""

    name: str
    title: str
    kind: str
    description: str = ""
    runtime: str = ""
    precision: str = ""
    threads: int = 1


@dataclass(frozen=True)
class BudgetData:
    """A budget on a device: a unit-bearing metric such as `latency_ms`, its bound in it, how it reads."""

    device: str
    metric: str
    bound: FiniteFloat
    text: str


@dataclass(frozen=True)
class CandidateFigure:
    """What was predicted of an architecture for one budget and what it does, in the metric's unit.

    The prediction's interval goes from `predicted / interval_factor` to `predicted * interval_factor`.
    """

    device: str
    metric: str
    predicted: FiniteFloat
    value: FiniteFloat
    basis: Told
    meets: bool
    interval_factor: FiniteFloat | None = None


@dataclass(frozen=True)
class CandidateData:
    """An architecture that the search measured, with a figure a budget; `meets` says it of all of them.

    `accuracy` is what an imported table tells.
    """

    genotype: str
    figures: list[CandidateFigure]
    meets: bool
    accuracy: FiniteFloat | None = None
    supernet_accuracy: FiniteFloat | None = None


@dataclass(frozen=True)
class TrialData:
    """How accurate a finalist became, on images it was not trained on, when trained for a few epochs."""

    genotype: str
    epochs: int
    accuracy: FiniteFloat


@dataclass(frozen=True)
class LandmarkFigure:
    """What a published network takes of a budget's metric, in its unit, simulated or predicted."""

    device: str
    metric: str
    value: FiniteFloat
    basis: Literal["simulated", "predicted"]


@dataclass(frozen=True)
class LandmarkData:
    """A published network, with its accuracy by the weights that all networks of the search share."""

    name: str
    genotype: str
    supernet_accuracy: FiniteFloat
    figures: list[LandmarkFigure]


@dataclass(frozen=True)
class HeldOutData:
    """The predictor on networks it was not fitted on; shares are of 1, `mape` is a mean relative error."""

    samples: int
    spearman: FiniteFloat
    within10: FiniteFloat
    mape: FiniteFloat
    constant_within10: FiniteFloat


@dataclass(frozen=True)
class BaselineData:
    """Another method on the same networks, in the terms of `HeldOutData`; or the problem it had, in words."""

    method: str
    spearman: FiniteFloat | None = None
    within10: FiniteFloat | None = None
    mape: FiniteFloat | None = None
    problem: str = ""


@dataclass(frozen=True)
class PredictorData:
    """The predictor of a device's metric that steered the search, where its labels came from, what it is
    compared with.
    """

    device: str
    metric: str
    basis: Told
    held_out: HeldOutData
    method: str = ""
    baselines: list[BaselineData] = field(default_factory=list)


@dataclass(frozen=True)
class SearchData:
    """What the search found, with a predictor a budget.

    `cells` is the genotype of the space; `history` one record an epoch. `queries` is how many accuracies it
    asked of an imported table, None where it trained a supernet. `trials` has each finalist's in turn,
    `landmarks` the published networks of the space.
    """

    genotype: str
    cells: dict[str, Any]
    candidates: list[CandidateData]
    predictors: list[PredictorData]
    history: list[dict[str, FiniteFloat]]
    space: str
    shape: str
    budgets: list[BudgetData]
    method: str = "gradient"
    queries: int | None = None
    trials: list[TrialData] = field(default_factory=list)
    landmarks: list[LandmarkData] = field(default_factory=list)

    @property
    def longest(self) -> dict[str, TrialData]:
        """The last, which is the longest, trial of each finalist, by its genotype."""
        return {one.genotype: one for one in self.trials}


@dataclass(frozen=True)
class TrainData:
    """What the training gave; `history` is one record an epoch of `loss` and `accuracy`."""

    test_accuracy: FiniteFloat
    test_images: int
    train_images: int
    parameters: int
    epochs: int
    history: list[dict[str, FiniteFloat]]


@dataclass(frozen=True)
class FileData:
    """An exported file; `file_accuracy` is its own, in its own interpreter."""

    target: str
    file: str
    size_bytes: int
    sha256: str
    file_accuracy: FiniteFloat | None = None
    parity: Parity | None = None
    precision: str = ""


@dataclass(frozen=True)
class VerifiedFigure(BudgetData):
    """The figure of the network for one budget, how it was come by, and whether it keeps it."""

    value: FiniteFloat
    basis: Basis
    meets: bool
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BesideData:
    """The network that the one found is compared with, with a figure a budget once it is judged."""

    name: str
    test_accuracy: FiniteFloat
    test_images: int
    parameters: int
    verdict: str = ""
    figures: list[VerifiedFigure] = field(default_factory=list)


@dataclass(frozen=True)
class LayerData:
    """What a simulated device takes for one layer, by itself."""

    name: str
    operator: str
    latency_ms: FiniteFloat


@dataclass(frozen=True)
class DeviceMeasurement:
    """A measurement and the device it was taken on; `layers` where that is simulated, layer by layer."""

    device: str
    measurement: Measurement
    layers: list[LayerData] = field(default_factory=list)


@dataclass(frozen=True)
class VerifyData:
    """The last word: the figures of the network on its devices."""

    verdict: str
    figures: list[VerifiedFigure]
    measurements: list[DeviceMeasurement]

    @property
    def basis(self) -> str:
        """How the figures were come by: "measured", "simulated", or both."""
        return " and ".join(sorted({one.basis for one in self.figures}))


@dataclass(frozen=True)
class PointsData:
    """Networks the predictor had not seen: what it said and what they did, in the metric's unit."""

    predicted: list[FiniteFloat]
    measured: list[FiniteFloat]


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. A stage that is None has not been done yet.

    `points` are those of the search's predictors, None for one that is no longer in the workspace;
    `classes` are the names of the data set's classes where an exported file tells them; `commands`
    reproduce the run; `versions` maps a title to names and versions.
    """

    run: str
    devices: list[DeviceData]
    settings: dict[str, Any]
    search: SearchData
    train: TrainData | None = None
    files: list[FileData] | None = None
    verify: VerifyData | None = None
    beside: BesideData | None = None
    points: list[PointsData | None] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
