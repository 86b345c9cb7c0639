"""`ehdnas simulate`: genotypes, ONNX files and modules on described accelerators, with bad input answered."""

import csv
import json
from pathlib import Path

import pytest

NETWORK = """
from torch import nn

def small():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 4))

def recurrent():
    return nn.Sequential(nn.Flatten(2), nn.LSTM(64, 8))

def broken():
    raise RuntimeError("no weights here")

def free():
    return nn.Sequential(nn.ReLU())

nothing = 3
"""
BOARD = """
kind = "e2e_perf"
title = "Mine"
[options]
paradigm = "pipeline"
mode = "realistic"
clock_mhz = 150
board = {{ dsp = {dsp}, bram18 = {bram}, lut = 200000, ddr_gbps = 4.2 }}
"""


@pytest.fixture
def network(project):
    (project / "nets.py").write_text(NETWORK)
    return project


def test_a_genotype_gives_layers_plots_and_json(project, ehdnas):
    result = ehdnas("simulate", "DARTS_V2", "--device", "zcu102-pipeline", "--json")
    found = json.loads(result.out)
    assert found["basis"] == "simulated" and found["device"] == "zcu102-pipeline"
    assert found["resources"]["dsp"] > 0 and found["bottleneck"] and "45 nm" in found["energy_source"]
    convs = [row for row in found["layers"] if row["operator"] == "conv"]
    assert all({"cpf", "kpf", "weights"} <= set(row["design"]) for row in convs)
    folder = Path(found["folder"])
    for name in ("roofline.svg", "timeline.svg"):
        assert "<svg" in (folder / name).read_text()
    with (folder / "layers.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == [row["name"] for row in found["layers"]]
    assert {row["cpf"] for row in rows} != {""}
    assert json.loads((folder / "simulation.json").read_text())["throughput_fps"] == found["throughput_fps"]


def test_a_genotype_is_of_the_space_that_is_named(project, ehdnas):
    found = json.loads(ehdnas("simulate", "RESNET", "--space", "nasbench201", "--json").out)
    assert found["network"] == "RESNET, c16x8-3x32x32-10-cifar" and found["latency_ms"] > 0
    (project / "ehdnas.toml").write_text('space = "nasbench201"\n')
    assert json.loads(ehdnas("simulate", "RESNET", "--json").out)["layers"] == found["layers"]


def test_exploring_is_never_slower_and_says_so(project, ehdnas):
    plain, explored = (
        json.loads(ehdnas("simulate", "DARTS_V2", "--device", "zcu102-pipeline", "--json", *flags).out)
        for flags in ([], ["--explore"])
    )
    assert explored["explored"] and not plain["explored"]
    assert explored["throughput_fps"] > plain["throughput_fps"]
    assert explored["folder"] != plain["folder"]


def test_the_reference_pipeline_gives_a_published_value(project, ehdnas):
    found = json.loads(ehdnas("simulate", "EHDNAS_PIPELINE", "--device", "ehdnas-pipeline", "--json").out)
    # One of the 36 values that the published labels take: 200e6 * B / (T + 1).
    assert any(
        found["throughput_fps"] == pytest.approx(200e6 * replicas / (slowest + 1), rel=1e-9)
        for replicas in range(5, 13)
        for slowest in (82_944, 98_304, 102_400, 131_072, 165_888, 196_608)
    )


def test_a_module_and_its_onnx_file_give_the_same(network, ehdnas):
    import torch

    from ehdnas.exporters.base import find_exporter

    flags = ["--device", "ehdnas-generic", "--json"]
    from_module = json.loads(ehdnas("simulate", "nets.py:small", "--input", "3x16x16", *flags).out)
    by_name = json.loads(ehdnas("simulate", "nets:small", "--input", "3x16x16", *flags).out)
    assert by_name["layers"] == from_module["layers"]
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    module = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8, 4)).eval()
    find_exporter("onnx").export(module, (3, 16, 16), network / "small.onnx")
    from_file = json.loads(ehdnas("simulate", "small.onnx", *flags).out)
    assert from_file["latency_ms"] == from_module["latency_ms"]
    assert from_file["model"] == "small.onnx"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nets.py:recurrent", "--input", "3x8x8"], 1, "lstm"),
        (["nets.py:free", "--input", "3x8x8"], 1, "no layer of the network takes time"),
        (["nets.py"], 2, "names no function: give nets.py:FUNCTION"),
        (["nets.py:broken"], 1, "RuntimeError: no weights here"),
        (["nets.py:nothing"], 2, "not an nn.Module"),
        (["nets.py:absent"], 2, "'nets.py' has no 'absent'"),
        (["gone.py:small"], 1, "no such file: gone.py"),
        (["nets.py:small", "--input", "3x16"], 2, "write CxHxW"),
        (["nets.py:small", "--input", "3x0x16"], 2, "write CxHxW"),
        (["gone.onnx"], 1, "gone.onnx"),
        (["text.onnx"], 1, "text.onnx"),
        (["DARTS_V2", "--explore"], 2, "nothing to explore"),
        (["DARTS_V2", "--device", "zcu103-pipeline"], 2, "unknown device"),
        (["gone.missing:net"], 1, "cannot import gone.missing"),
    ],
)
def test_bad_input_is_one_line(network, ehdnas, arguments, code, says):
    (network / "text.onnx").write_text("not a model")
    result = ehdnas("simulate", *arguments)
    last = result.err.strip().splitlines()[-1]
    assert result.code == code, result.err
    assert last.startswith("error: ") and says in last
    assert "Traceback" not in result.err and result.out == ""


@pytest.mark.parametrize(
    ("dsp", "bram", "says"),
    [
        (0, 400, "board: key 'dsp': Input should be greater than 0"),
        (400, -4, "board: key 'bram18'"),
        (100, 400, "DSP slices at least, 95 usable"),
    ],
)
def test_a_board_that_cannot_be_or_cannot_hold_it_is_one_line(project, ehdnas, dsp, bram, says):
    (project / "mine.toml").write_text(BOARD.format(dsp=dsp, bram=bram))
    added = ehdnas("devices", "add", "mine.toml")
    # What cannot be is refused at once; what cannot hold this network, when it is asked to.
    assert (added.code == 0) == says.startswith("DSP")
    result = ehdnas("simulate", "DARTS_V2", "--device", "mine") if added.code == 0 else added
    assert result.code != 0
    assert says in result.err.strip().splitlines()[-1]


def test_a_malformed_device_file_names_the_key_and_the_file(project, ehdnas):
    (project / "mine.toml").write_text(BOARD.format(dsp=1, bram=1).replace("title", "titel"))
    result = ehdnas("devices", "add", "mine.toml")
    assert result.code == 2
    assert "mine.toml: unknown key 'titel'; did you mean 'title'" in result.err


def test_what_the_accelerator_is_and_what_it_waits_for_is_printed(network, ehdnas):
    explored = ehdnas(
        "simulate", "nets.py:small", "--input", "3x16x16", "--device", "zcu102-generic", "--explore"
    )
    assert explored.code == 0 and "cpf " in explored.out and "kpf " in explored.out
    published = ehdnas("simulate", "DARTS_V2", "--device", "ehdnas-generic").out
    assert "this mode does not tell compute from memory" in published
