"""What of a search space, or of a file, the Edge TPU would run: known before anything is trained."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ehdnas.core.errors import EhdnasError, UsageError
from ehdnas.core.export_options import ExportOptions
from ehdnas.core.graph import Graph
from ehdnas.exporters.base import find_exporter, network_graph
from ehdnas.exporters.edgetpu.rules import StaticReport
from ehdnas.pipeline.context import UNMAPPED, Context
from ehdnas.search.spaces.base import Part
from ehdnas.settings import export_options

TARGET = "edgetpu"
_IMAGES = 4


@dataclass(frozen=True)
class ChoiceVerdict:
    """Whether a choice of the space maps in every place it can stand; `problems` say why not, in words."""

    choice: str
    variants: int
    operators: dict[str, int]
    problems: list[str]

    @property
    def maps(self) -> bool:
        """True when nothing of it would stay on the CPU."""
        return not self.problems


def heed_mapping(context: Context) -> Context:
    """Warn of choices that would not map on one of the devices, and leave them out where asked to.

    Of several devices those that are Edge TPUs count: what they cannot run a network for all does without.

    Returns:
        The context, with `exclude` naming choices where it said `unmapped`.

    Raises:
        UsageError: `unmapped` choices are to be left out for a device whose compiler is not known.
    """
    asked = context.settings.exclude.strip() == UNMAPPED
    devices = [one.device for one in context.each_device()]
    if all(device.runtime != TARGET for device in devices):
        if asked:
            names = ", ".join(device.name for device in devices)
            raise UsageError(
                f"exclude = '{UNMAPPED}' needs an Edge TPU device; device '{names}' is none: "
                "name the choices to leave out"
            )
        return context
    whole = context.having(exclude="") if asked else context
    left_out = {name.strip() for name in whole.settings.exclude.split(",")}
    unmapped = [one for one in check_choices(whole) if not one.maps and one.choice not in left_out]
    for one in unmapped:
        left = "; left out" if asked else f"; leave it out with --exclude {UNMAPPED}"
        context.reporter.warn(f"search: {one.choice} would not run on the Edge TPU: {one.problems[0]}{left}")
    if not unmapped:
        context.reporter.say("search: every choice maps on the Edge TPU, by the static check")
    if not asked:
        return context
    return whole.having(exclude=",".join(one.choice for one in unmapped))


def check_choices(context: Context) -> list[ChoiceVerdict]:
    """Return a verdict on each choice of the space, each of its variants exported to int8 and checked.

    Variants that differ in size alone are checked once: the rules do not depend on it.
    """
    options = export_options(context.settings)
    reports: dict[str, dict[tuple[object, ...], StaticReport | str]] = {}
    graphs: dict[tuple[int, object], Graph] = {}
    for (slot, choice), parts in context.space.parts(context.shape).by_decision():
        found = reports.setdefault(context.space.choice_name(slot, choice), {})
        for part in parts:
            place = (id(part.module), part.inputs)
            if place not in graphs:
                graphs[place] = _graph(part)
            kind = _kind(graphs[place])
            if kind not in found:
                found[kind] = _check(graphs[place], options)
    return [_verdict(name, list(found.values())) for name, found in reports.items()]


def check_genotype(context: Context, genotype: str) -> StaticReport:
    """Return what of a network the Edge TPU would run, before it is trained.

    Raises:
        UsageError: it is no genotype of the space.
    """
    from ehdnas.pipeline.candidates import untrained

    network = untrained(context.space, context.space.parse(genotype), context.shape)
    graph = network_graph(network, context.shape.image)
    found = _check(graph, export_options(context.settings))
    if isinstance(found, str):
        raise UsageError(found)
    return found


def _graph(part: Part) -> Graph:
    # A skip connection hands its input on: it is no operator, and a graph of none cannot be exported.
    from ehdnas.core.graph import fold_batch_norm, trace

    return fold_batch_norm(trace(part.module.eval(), part.inputs))


def _kind(graph: Graph) -> tuple[object, ...]:
    return tuple((node.op, str(sorted(node.attrs.items()))) for node in _unsized(graph))


def _unsized(graph: Graph) -> list[Any]:
    plain = []
    for node in graph.nodes:
        attrs = {key: value for key, value in node.attrs.items() if key not in ("starts", "stops")}
        if "groups" in attrs:
            attrs["groups"] = attrs["groups"] == node.inputs[0].shape[1]
        if node.op == "conv":
            attrs["kernel"] = node.params["weight"].shape[2:]
        plain.append(replace(node, attrs=attrs))
    return plain


def _check(graph: Graph, options: ExportOptions) -> StaticReport | str:
    """Return the report on a graph, or why it cannot be exported."""
    if not graph.nodes:
        return StaticReport.empty()
    # Which operators there are does not depend on how well the scales are chosen.
    quick = ExportOptions(dilated=options.dilated, calibration="minmax", bias_correction=False)
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((_IMAGES, *v.shape[1:])).astype(np.float32) for v in graph.inputs]
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
        exporter = find_exporter(TARGET, quick)
        try:
            artifact = exporter.export_graph(graph, Path(folder) / exporter.file_name(), images=images)
        except EhdnasError as error:
            return str(error)
        return StaticReport.model_validate(artifact.manifest.details[TARGET])


def _verdict(name: str, reports: list[StaticReport | str]) -> ChoiceVerdict:
    problems: list[str] = []
    operators: Counter[str] = Counter()
    for report in reports:
        if isinstance(report, str):
            problems.append(report)
            continue
        operators.update(one.operator for one in report.operators)
        problems += [f"{one.operator}: {one.reason}" for one in report.operators if not one.maps]
    return ChoiceVerdict(name, len(reports), dict(operators), list(dict.fromkeys(problems)))
