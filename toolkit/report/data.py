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
    """The budget: a unit-bearing metric such as `latency_ms`, its bound in that unit, and how it reads."""

    metric: str
    bound: FiniteFloat
    text: str


@dataclass(frozen=True)
class CandidateData:
    """An architecture that the search measured; `predicted` and `value` are in the metric's unit.

    The prediction's interval goes from `predicted / interval_factor` to `predicted * interval_factor`.
    `accuracy` is what an imported table tells.
    """

    genotype: str
    predicted: FiniteFloat
    value: FiniteFloat
    basis: Told
    meets: bool
    accuracy: FiniteFloat | None = None
    supernet_accuracy: FiniteFloat | None = None
    interval_factor: FiniteFloat | None = None


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
    """The predictor that steered the search, where its labels came from, and what it is compared with.

    Runs of earlier versions have neither `method` nor `baselines`.
    """

    metric: str
    basis: Told
    held_out: HeldOutData
    method: str = ""
    baselines: list[BaselineData] = field(default_factory=list)


@dataclass(frozen=True)
class SearchData:
    """What the search found. `cells` is the genotype of the space; `history` one record an epoch.

    `queries` is how many accuracies it asked of an imported table, None where it trained a supernet.
    """

    genotype: str
    cells: dict[str, Any]
    candidates: list[CandidateData]
    predictor: PredictorData
    history: list[dict[str, FiniteFloat]]
    space: str
    shape: str
    budget: BudgetData
    method: str = "gradient"
    queries: int | None = None


@dataclass(frozen=True)
class BesideData:
    """The network that the one found is compared with; its figure is None until it is judged."""

    name: str
    test_accuracy: FiniteFloat
    test_images: int
    parameters: int
    verdict: str = ""
    basis: Basis | None = None
    value: FiniteFloat | None = None


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
class VerifyData:
    """The last word: the figure of the network on the device, and how it was come by."""

    verdict: str
    basis: Basis
    value: FiniteFloat
    measurement: Measurement


@dataclass(frozen=True)
class PointsData:
    """Networks the predictor had not seen: what it said and what they did, in the metric's unit."""

    predicted: list[FiniteFloat]
    measured: list[FiniteFloat]


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. A stage that is None has not been done yet.

    `classes` are the names of the data set's classes where an exported file tells them; `commands`
    reproduce the run; `versions` maps a title to names and versions.
    """

    run: str
    device: DeviceData
    settings: dict[str, Any]
    search: SearchData
    train: TrainData | None = None
    files: list[FileData] | None = None
    verify: VerifyData | None = None
    beside: BesideData | None = None
    points: PointsData | None = None
    classes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
