"""The page: one HTML file that needs nothing else and says first what the result is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ehdnas.core.accuracy import difference_error
from ehdnas.report import figures, passport, wording
from ehdnas.report.data import DeviceData, DeviceMeasurement, ReportData

_HERE = Path(__file__).parent
_CLOCK = "A clock timed the exported file on the device itself."
_MODEL = "A model of the device computed this figure from the network's layers. No hardware was timed."
_SOURCES = {
    "measured": _CLOCK,
    "simulated": _MODEL,
    "measured and simulated": f"Where a figure is measured: {_CLOCK} Where it is simulated: {_MODEL}",
}


@dataclass(frozen=True)
class Headline:
    """The first thing a reader sees: the verdict, how its figure was come by, and what that means."""

    tone: str
    word: str
    basis: str
    explanation: str


def render(data: ReportData) -> str:
    """Return the report as the text of an HTML file, without scripts and without links to anything outside.

    All texts of `data` are shown as text. Equal data give equal reports.
    """
    page = environment().get_template("report.html").render(
        data=data,
        search=data.search,
        budgets=data.search.budgets,
        asked=wording.budgets(data.search.budgets),
        several=len(data.search.budgets) > 1,
        headline=headline(data),
        left=stages_left(data),
        cells=figures.cell_figures(data.search),
        tradeoffs=figures.tradeoff_figures(data.search),
        search_figures=figures.search_figures(data.search),
        train_figures=figures.train_figures(data.train) if data.train else [],
        predictors=list(zip(data.search.predictors, figures.predictor_figures(data), strict=True)),
        measured=_measured(data),
    )  # fmt: skip
    # A class named by a folder whose name is not UTF-8 carries bytes that no file can hold as text.
    return page.encode(errors="replace").decode()


def headline(data: ReportData) -> Headline:
    """Return the verdict in words that keep a simulated figure from being taken for a measured one."""
    if data.search.queries is not None:
        text = (
            f"Accuracy and figure are those of an imported table, found with {data.search.queries} queries: "
            "nothing was measured here."
        )
        return Headline("open", "FROM A TABLE", "imported", text)
    if data.verify is None:
        text = "The network has not been judged on the device yet, so nothing here is a result."
        return Headline("open", "NOT VERIFIED YET", "", text)
    source = _SOURCES[data.verify.basis]
    tones = {"PASS": "pass", "FAIL": "fail"}
    what = "budget" if len(data.search.budgets) == 1 else "budgets"
    reasons = {
        "PASS": f"The network meets the {what}.",
        "FAIL": f"The network does not meet the {what}.",
        "NO VERDICT": "The quick protocol measures too briefly to decide; use the standard one.",
    }
    text = f"{reasons.get(data.verify.verdict, '')} {source}".strip()
    return Headline(tones.get(data.verify.verdict, "open"), data.verify.verdict, data.verify.basis, text)


def stages_left(data: ReportData) -> list[tuple[str, str]]:
    """Return what has not been done yet, each as (what, command)."""
    target = {"onnxruntime": "onnx"}.get(data.devices[0].runtime, "tflite")
    left = []
    if data.train is None:
        left.append(("The network is not trained: its accuracy is unknown.", "ehdnas train"))
    if data.files is None:
        left.append(("No file has been exported.", f"ehdnas export --target {target}"))
    if data.verify is None and data.search.queries is None:
        left.append(("The network has not been judged on the device.", "ehdnas run --resume"))
    return left


def _measured(
    data: ReportData,
) -> list[tuple[DeviceMeasurement, DeviceData, list[tuple[str, str]], figures.Figure | None]]:
    """Return each measurement with its device, the rows of its passport and the figure of its layers."""
    if data.verify is None:
        return []
    devices = {one.name: one for one in data.devices}
    taken = data.verify.measurements
    return [
        (one, devices[one.device], passport.rows(one.measurement.passport), layers)
        for one, layers in zip(taken, figures.layer_figures(taken), strict=True)
    ]


@cache
def environment() -> Environment:
    """Return what renders the templates of this folder, every text escaped."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "quantity": wording.quantity,
        "whole": wording.whole,
        "size": wording.size,
        "with_unit": wording.with_unit,
    }
    environment.globals |= {"relation": wording.relation, "difference_error": difference_error}
    return environment
