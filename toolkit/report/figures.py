"""The figures of a report: which there are, what they are called and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ehdnas.report.cells import as_edges, cell_figure
from ehdnas.report.curves import Level, Line, curve_figure
from ehdnas.report.data import DeviceMeasurement, PointsData, PredictorData, ReportData, SearchData, TrainData
from ehdnas.report.layers import MOST as MOST_LAYERS
from ehdnas.report.layers import layers_figure
from ehdnas.report.scatter import MOST, scatter_figure
from ehdnas.report.tradeoff import tradeoff_figure
from ehdnas.report.wording import quantity, whole

_MOST_SKIPS = 3  # as `ehdnas.search.signs` warns; imported from there, it would load torch
_CELLS = {
    "normal": ("Normal cell", "Keeps height and width; most cells of the network are copies of it."),
    "reduce": (
        "Reduction cell",
        "Halves height and width, a third and two thirds of the way through the network.",
    ),
}


@dataclass(frozen=True)
class Figure:
    """A drawing with its title and what the reader is told about it."""

    title: str
    svg: Markup
    caption: str


def cell_figures(search: SearchData) -> list[Figure]:
    """Return the cells drawn as graphs; none for a space whose genotype is not made of such cells."""
    found = []
    for name, cell in search.cells.items():
        edges = as_edges(cell)
        if edges is not None:
            title, caption = _CELLS.get(name, (f"Cell {name}", ""))
            found.append(Figure(title, cell_figure(name, edges), caption))
    return found


def tradeoff_figures(search: SearchData) -> list[Figure]:
    """Return accuracy against each budget's metric, for all networks that the search knows both of."""
    bases = {figure.basis for one in search.landmarks for figure in one.figures}
    said = f" What published networks take is {' or '.join(sorted(bases))}." if bases else ""
    caption = (
        f"Accuracies are with weights that all networks share, which rank them and tell little more.{said}"
    )
    found = []
    for number, one in enumerate(search.budgets):
        svg = tradeoff_figure(search, one, f"tradeoff-{number}")
        if svg is not None:
            title = f"Accuracy against {quantity(one.metric)[0]} on {one.device}"
            found.append(Figure(title, svg, caption))
    return found


def search_figures(search: SearchData) -> list[Figure]:
    """Return the curves of the search."""
    upper = any(one.metric != "throughput_fps" for one in search.budgets)
    ratio = "predicted / bound" if upper else "bound / predicted"
    worst = " Of several budgets each network's worst counts." if len(search.budgets) > 1 else ""
    losses = (Line("loss", "weights"), Line("architecture_loss", "architecture"))
    return _present(
        _curve("search-loss", "Losses", "cross-entropy", search.history, losses,
               caption="Of the weights on one half of the training images, of the architecture on the rest."),
        _curve("search-accuracy", "Accuracy of sampled networks", "accuracy (%)", search.history,
               (Line("accuracy", "accuracy", 100),),
               caption="With weights that all networks share, so lower than a network trained alone."),
        _curve("search-violation", "Violation of the budget", f"ln({ratio}), no unit", search.history,
               (Line("violation", "violation"),), Level(0, "budget"),
               caption="The mean over sampled networks, at the far end of the predictor's interval. "
                       f"Under 0 the budget is kept; 0.1 is about 10 % beyond it.{worst}"),
        _curve("search-entropy", "How undecided the search is", "entropy (nats a decision)", search.history,
               (Line("entropy", "entropy"),),
               caption="Of the distribution that networks are drawn from; 0 means that all is decided."),
        _curve("search-skips", "Skips in the likeliest network", "skips in a cell, at most", search.history,
               (Line("skips", "skips"),), Level(_MOST_SKIPS, "more are a sign of collapse"),
               caption="A search that does not train its weights enough ends with too many of them."),
    )  # fmt: skip


def layer_figures(taken: Sequence[DeviceMeasurement]) -> list[Figure | None]:
    """Return the costliest layers by measurement; None where a device does not tell of layers."""
    found: list[Figure | None] = []
    for number, one in enumerate(taken):
        shown, every = min(MOST_LAYERS, len(one.layers)), whole(len(one.layers))
        caption = (
            f"The {shown} of {every} layers that take longest, each by itself, by the model of the device: "
            "what works on several at once takes less for them together."
        )
        svg = layers_figure(one.layers, f"layers-{number}") if one.layers else None
        found.append(None if svg is None else Figure(f"Where the time goes on {one.device}", svg, caption))
    return found


def train_figures(train: TrainData) -> list[Figure]:
    """Return the curves of the training."""
    test = Level(100 * train.test_accuracy, "test images, at the end")
    return _present(
        _curve("train-loss", "Training loss", "cross-entropy", train.history, (Line("loss", "loss"),),
               caption="Mean over the batches of an epoch, an auxiliary classifier's share included."),
        _curve("train-accuracy", "Training accuracy", "accuracy (%)", train.history,
               (Line("accuracy", "training images", 100),), test,
               caption="Training images are varied, and paths dropped, so the test line may lie above."),
    )  # fmt: skip


def predictor_figures(data: ReportData) -> list[Figure | None]:
    """Return the scatters of predicted against measured, one a predictor; None where there are no points."""
    pairs = zip(data.search.predictors, data.points, strict=True)
    return [_predictor_figure(number, *pair) for number, pair in enumerate(pairs)]


def _predictor_figure(number: int, predictor: PredictorData, points: PointsData | None) -> Figure | None:
    if points is None or not points.measured:
        return None
    count = len(points.measured)
    shown = f" Every {-(-count // MOST)}th of {whole(count)} is drawn." if count > MOST else ""
    caption = f"Networks that the predictor was not fitted on.{shown}"
    name = "scatter" if number == 0 else f"scatter-{number}"
    return Figure(f"Predicted against {predictor.basis}", scatter_figure(points, predictor, name), caption)


def _curve(
    name: str, title: str, unit: str, history: list[dict[str, float]], lines: tuple[Line, ...],
    level: Level | None = None, *, caption: str,
) -> Figure | None:  # fmt: skip
    svg = curve_figure(name, title, unit, history, lines, level)
    return None if svg is None else Figure(title, svg, caption)


def _present(*figures: Figure | None) -> list[Figure]:
    return [figure for figure in figures if figure is not None]
