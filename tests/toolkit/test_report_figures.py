"""The drawing parts of the report: layout, inline SVG, wording and what a passport may tell."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest

from ehdnas.report.cells import as_edges, cell_figure, describe
from ehdnas.report.curves import Level, Line, curve_figure
from ehdnas.report.data import HeldOutData, PointsData, PredictorData
from ehdnas.report.layout import arrange
from ehdnas.report.passport import private_words, rows, shareable
from ehdnas.report.scatter import MOST, scatter_figure
from ehdnas.report.wording import percent, quantity, relation, size, whole, with_unit


def test_layout_keeps_layers_and_the_room_every_vertex_needs():
    # Two sources, three boxes in the next layer, one of them fed across; a link that passes a layer.
    rank, links = [0, 0, 1, 1, 1, 2], [(0, 4), (1, 2), (0, 3), (2, 5), (3, 5), (4, 5), (1, 5)]
    layout = arrange(rank, [1.0] * 6, links, passing=0.5)
    assert layout.rank == [*rank, 1]
    assert layout.paths[-1] == [1, 6, 5]
    heights = sorted((layout.y[v], 0.5 if v == 6 else 1.0) for v in (2, 3, 4, 6))
    for (low, below), (high, above) in pairwise(heights):
        assert high - low >= (below + above) / 2 - 1e-9


def test_layout_undoes_a_needless_crossing():
    layout = arrange([0, 0, 1, 1], [1.0] * 4, [(0, 3), (1, 2)], passing=0.5)
    assert (layout.y[0] - layout.y[1]) * (layout.y[3] - layout.y[2]) > 0


@pytest.mark.parametrize(
    "cell",
    [None, [], "normal", [["a", 0]], [["a", 0], ["b", 2]], [["a", -1], ["b", 0]], [["a", 0], [1, 0]],
     [["a", 0, 0], ["b", 1]], [["a", 0], ["b", "1"]], [["a", 0]] * 42],
)  # fmt: skip
def test_what_is_no_cell_is_not_drawn(cell):
    assert as_edges(cell) is None


def test_a_cell_is_drawn_with_a_box_for_every_state_and_operation():
    edges = as_edges(
        [["sep_conv_3x3", 0], ["skip_connect", 1], ["a_very_long_operation_name_indeed", 2], ["pool", 0]]
    )
    svg = cell_figure("normal", edges)
    for label in (
        "two cells back",
        "previous cell",
        "node 0",
        "node 1",
        "concat",
        "pool",
        "a_very_long_operation_n…",
    ):
        assert f">{label}</text>" in svg
    assert "node 1 adds a_very_long_operation_name_indeed of node 0 and pool of two cells back" in describe(
        edges
    )


def test_a_name_that_cannot_be_shown_is_drawn_with_question_marks():
    edges = as_edges([["conv\udcff\n", 0], ["\x00pool", 1]])
    svg = cell_figure("odd", edges)
    assert ">conv??</text>" in svg
    assert ">?pool</text>" in svg


def test_figures_take_the_pages_colours_and_no_fixed_ones():
    svg = curve_figure(
        "c", "Loss", "nats", [{"epoch": 0, "a": 1.0}, {"epoch": 1, "a": 0.5}], [Line("a", "loss")]
    )
    assert "currentColor" in svg
    assert "var(--first)" in svg
    assert "#0102" not in svg
    assert "<metadata" not in svg
    assert "<style" not in svg
    assert "font-family" not in svg


def test_an_epoch_without_a_value_is_left_out_and_a_curve_without_any_is_no_figure():
    history = [{"epoch": 0, "loss": 2.0}, {"epoch": 1, "loss": 1.0, "accuracy": 0.5}]
    svg = curve_figure("c", "Accuracy", "%", history, [Line("accuracy", "accuracy", 100)], Level(75, "test"))
    assert "accuracy from 50 in epoch 2 to 50 in epoch 2; test at 75" in svg
    assert curve_figure("c", "Entropy", "nats", history, [Line("entropy", "entropy")]) is None


def predictor():
    return PredictorData("somewhere", "throughput_fps", "simulated", HeldOutData(3, 1.0, 1.0, 0.01, 0.2))


def test_a_scatter_names_its_axes_with_units():
    svg = scatter_figure(PointsData([100.0, 201.0, 290.0], [101.0, 200.0, 300.0]), predictor())
    assert ">simulated throughput (fps)</text>" in svg
    assert ">predicted throughput (fps)</text>" in svg
    assert "from 101 to 300 fps" in svg


def test_a_scatter_draws_a_bounded_number_of_points():
    values = [1 + i / 1000 for i in range(4 * MOST + 1)]
    svg = scatter_figure(PointsData(values, values), predictor())
    assert 0.7 * MOST < svg.count("<use") <= MOST + 30  # ticks are drawn by reference as well


def test_equal_values_can_be_drawn():
    assert "<svg" in scatter_figure(PointsData([5.0, 5.0], [5.0, 5.0]), predictor())


def test_a_passport_loses_names_and_addresses_at_every_depth():
    passport = {
        "machine": {"model": "Pi 4", "host_name": "attic", "ip.address": "10.0.0.9", "node_nm": 28},
        "log": ["connected to attic", "10.0.0.9:22", "/home/bob/venv", "Linux 6.18.44"],
        "governor": "powersave",
    }
    kept = shareable(passport, private_words("alice@attic:22"))
    assert kept == {
        "machine": {"model": "Pi 4", "node_nm": 28},
        "log": ["connected to (left out)", "(left out):22", "(left out)/venv", "Linux 6.18.44"],
        "governor": "powersave",
    }


def test_a_word_within_another_is_not_private():
    assert shareable({"system": "piOS on a pi"}, private_words("pi@board")) == {
        "system": "piOS on a (left out)"
    }


def test_rows_name_what_is_nested_and_spell_values_out():
    told = rows(
        {"before": {"freq_mhz": 1800.0}, "throttled": False, "load": None, "affinity": [0, 1], "x": []}
    )
    assert told == [
        ("before, freq mhz", "1800.0"),
        ("throttled", "no"),
        ("load", "unknown"),
        ("affinity", "0, 1"),
        ("x", "none"),
    ]


def test_rows_tell_once_what_all_processes_agree_on():
    told = rows({"after": [{"load": 0.5, "affinity": [0, 1]}, {"load": 0.7, "affinity": [0, 1], "mhz": 5}]})
    assert told == [("after, load", "0.5, 0.7"), ("after, affinity", "0, 1"), ("after, mhz", "unknown, 5")]


def test_wording():
    assert quantity("energy_mj") == ("energy", "mJ")
    assert quantity("peak_memory_mb") == ("peak memory", "MB")
    assert quantity("score") == ("score", "")
    assert with_unit(3.14159, "latency_ms") == "3.142 ms"
    assert percent(0.12345) == "12.3 %"
    assert whole(1234567) == "1\u202f234\u202f567"
    assert [size(999), size(1500), size(2_340_000)] == ["999 bytes", "1.5 kB", "2.34 MB"]
    assert relation(90, 100) == "10.0 % under the bound"
    assert relation(110, 100) == "10.0 % over the bound"


def test_importing_the_report_leaves_matplotlib_alone():
    code = "import sys, ehdnas.report; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=60)
