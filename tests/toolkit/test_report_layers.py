"""Where the time goes: a simulated device's layers, in the run and on its page."""

import json

import pytest
from whole_run import Page

from ehdnas.report.data import LayerData
from ehdnas.report.layers import MOST, costliest, layers_figure
from ehdnas.workspace import find_workspace


def test_the_costliest_come_first_and_layers_called_alike_keep_a_bar_each():
    layers = [LayerData("conv <b>", "conv", 1.0 + number / 100) for number in range(30)]
    assert [one.latency_ms for one in costliest(layers)] == sorted(
        (one.latency_ms for one in layers), reverse=True
    )[:MOST]
    svg = layers_figure(layers, "layers-0")
    assert "Bars of the 15 layers that take longest, of 30" in svg and "<b>" not in svg
    assert svg.count("conv &lt;b&gt;") >= MOST


def test_a_run_on_a_simulated_device_tells_of_its_layers(tiny, ehdnas):
    result = ehdnas("run", "--budget", "1.2x", "--json")
    assert result.code == 0, result.err
    run = find_workspace().latest()
    (taken,) = json.loads(run.stage_file("verify").read_text())["measurements"]
    total = sum(one["latency_ms"] for one in taken["layers"])
    assert total == pytest.approx(taken["measurement"]["metrics"]["latency_ms"], rel=0.02)
    page = Page((run.folder / "report.html").read_text())
    assert "Where the time goes on ehdnas-generic" in page.text
    assert "Accuracy against latency on ehdnas-generic" in page.text and "DARTS_V2" in page.text
