"""E2E-Perf's systolic paradigm against SCALE-Sim 3.0.0, and against what must hold of any such array."""

import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehdnas.core.errors import MeasurementError, UsageError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.e2e_perf.systolic.array import DATAFLOWS, Systolic, systolic_cycles
from ehdnas.profilers.e2e_perf.systolic.gemm import gemm
from ehdnas.profilers.e2e_perf.workload import Columns, Workload

_BENCH = Path(__file__).parents[3] / "bench" / "scale_sim.py"
_SPEC = importlib.util.spec_from_file_location("bench_scale_sim", _BENCH)
scale_sim = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(scale_sim)

MIB = 1 << 20
ARRAY = {"clock_mhz": 200, "rows": 16, "cols": 32, "vector_lanes": 16}


def conv(cin, cout, size, kernel=1, stride=1, padding=0, dilation=1, groups=1, width=None, bits=16) -> Layer:
    pairs = [(value, value) for value in (kernel, stride, padding, dilation)]
    return Layer("conv", "conv", cin, cout, size, width or size, *pairs, groups, bits)


def product(m, k, n) -> Layer:
    """A layer with M windows of K elements and N filters."""
    return conv(k, n, m, width=1)


def cycles(layer, rows, cols, dataflow, **options) -> int:
    return int(systolic_cycles(Columns([layer]), rows, cols, dataflow, **options)[0])


def vector(operator, **sizes) -> Layer:
    return Layer(operator, operator, 64, 64, 8, 8, **sizes)


def layers():
    def build(kernel, extra, cin, cout, stride, padding, dilation, groups):
        size = dilation * (kernel - 1) + 1 + extra
        return conv(cin * groups, cout * groups, size, kernel, stride, padding, dilation, groups)

    few = st.integers(1, 5)
    return st.builds(build, few, st.integers(0, 12), few, few, few, st.integers(0, 3), st.integers(1, 3), few)


sizes, flows = st.integers(1, 40), st.sampled_from(DATAFLOWS)


def test_every_stored_cycle_of_scale_sim_is_reproduced():
    rows = scale_sim.stored()
    expected = {tuple(job.values()) for job in scale_sim.jobs()}
    assert {tuple(row[key] for key in scale_sim.KEY) for row in rows} == expected
    assert {(row["rows"], row["cols"]) for row in rows} == {("8", "8"), ("16", "32"), ("128", "128")}
    assert [row for row in rows if int(row["cycles"]) != scale_sim.formula(row)] == []


def test_leaving_the_memory_simulation_out_changes_no_cycle():
    rows = {tuple(row[key] for key in scale_sim.KEY): row["cycles"] for row in scale_sim.stored()}
    whole = [key for key in rows if key[-1] == "whole"]
    assert len(whole) >= 3 * 3 * 3
    assert [key for key in whole if rows[key] != rows[*key[:-1], "compute"]] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_real_scale_sim_reports_the_same_cycles(tmp_path):
    try:
        python = scale_sim.scalesim_python(tmp_path / "venv")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"pip could not install {scale_sim.REQUIREMENTS}: {error}")
    # A rest that the stride leaves, and a vector: neither has a shape that is stored.
    shapes = [("rest", 5, 12, 10, 3, 2, 1), ("vector", 70, 30, 1, 1, 1, 0)]
    rows = [
        dict(zip(scale_sim.KEY, ("none", *map(str, (*shape, 4, 6)), flow, method), strict=True))
        for shape in shapes
        for flow in DATAFLOWS
        for method in ("whole", "compute")
    ]
    reported = [found for found, _ in scale_sim.scalesim_cycles(python, rows)]
    assert reported == [scale_sim.formula(row) for row in rows]


@given(layers(), sizes, sizes, flows)
def test_the_outputs_of_the_network_take_no_longer_than_scale_sims(layer, rows, cols, flow):
    ours, theirs = (cycles(layer, rows, cols, flow, partial_windows=partial) for partial in (False, True))
    extent = layer.dilation[0] * (layer.kernel[0] - 1) + 1
    rest = (layer.h + 2 * layer.padding[0] - extent) % layer.stride[0]
    assert ours == theirs if rest == 0 else ours <= theirs
    m, k, n = gemm(Columns([layer]), partial_windows=False)
    assert m * k * n * layer.groups == layer.macs
    assert ours >= layer.macs / (rows * cols) - layer.groups


@given(layers(), sizes, sizes, flows)
def test_groups_run_one_after_another(layer, rows, cols, flow):
    one = conv(
        layer.cin // layer.groups, layer.cout // layer.groups, layer.h, layer.kernel[0], layer.stride[0],
        layer.padding[0], layer.dilation[0],
    )  # fmt: skip
    assert cycles(layer, rows, cols, flow) == layer.groups * cycles(one, rows, cols, flow)


@given(sizes, sizes, sizes, sizes, sizes)
def test_the_dataflows_are_one_another_transposed(m, k, n, rows, cols):
    straight, turned = product(m, k, n), product(n, k, m)
    assert cycles(straight, rows, cols, "is") == cycles(turned, rows, cols, "ws")
    assert cycles(straight, rows, cols, "os") == cycles(turned, cols, rows, "os")


@given(sizes, sizes, sizes, sizes, sizes, flows)
def test_every_kind_of_product_is_timed_as_one(m, k, n, rows, cols, flow):
    expected = cycles(product(m, k, n), rows, cols, flow)
    assert cycles(Layer("", "linear", k, n, m, 1), rows, cols, flow) == expected
    assert cycles(Layer("", "matmul", 3 * k, 3 * n, m, 1, groups=3), rows, cols, flow) == 3 * expected
    upwards = Layer("", "conv_transpose", k, n, m, 1, (2, 2), (2, 2), out_size=(2 * m, 2))
    assert cycles(upwards, rows, cols, flow) == cycles(product(m, k, 4 * n), rows, cols, flow)


def test_a_given_output_size_has_no_window_over_the_edge():
    uneven = Layer("", "conv", 3, 32, 224, 224, (3, 3), (2, 2), (1, 1), out_size=(112, 112))
    assert cycles(uneven, 16, 32, "os") == cycles(uneven, 16, 32, "os", partial_windows=False)


@pytest.mark.parametrize("flow", DATAFLOWS)
def test_a_network_takes_its_layers_one_after_another(flow):
    network = (conv(3, 64, 32, 3, padding=1), vector("relu"), conv(64, 64, 8, 3, groups=64), vector("add"))
    total = sum(cycles(layer, 16, 32, flow) for layer in network) + 2 * 64 * 64 / 16
    workload = Workload.of_networks([LayerTable(network), LayerTable(network + network)])
    found = Systolic(**ARRAY, dataflow=flow).figures(workload)
    assert found.latency_s == pytest.approx([total / 200e6, 2 * total / 200e6])
    assert found.throughput_fps == pytest.approx(1 / found.latency_s)


@pytest.mark.parametrize(
    ("layer", "elements"),
    [
        (vector("relu"), 64 * 64),
        (vector("add"), 64 * 64),
        (vector("norm"), 2 * 64 * 64),
        (vector("softmax"), 3 * 64 * 64),
        (vector("concat"), 0),
        (vector("max_pool", kernel=(3, 3), stride=(2, 2), padding=(1, 1)), 9 * 16 * 64),
        (vector("global_pool", kernel=(8, 8)), 64 * 64),
    ],
)
def test_what_is_no_product_runs_on_the_vector_unit(layer, elements):
    assert Systolic(**ARRAY, dataflow="ws").costs(Columns([layer])).cycles.tolist() == [elements / 16]
    assert cycles(layer, 16, 32, "ws") == 0


def costs(layer, flow, **options):
    return Systolic(**ARRAY, dataflow=flow, bytes_per_cycle=1, **options).costs(Columns([layer]))


def test_a_memory_large_enough_moves_every_byte_once():
    layer = conv(64, 128, 14, 3, padding=1, bits=8)
    once = 64 * 14 * 14 + 9 * 64 * 128 + 128 * 14 * 14
    for flow in DATAFLOWS:
        found = costs(layer, flow)
        assert found.dram_bytes.tolist() == [once]
        assert found.cycles.tolist() == [max(once, cycles(layer, 16, 32, flow))]


@pytest.mark.parametrize(
    ("flow", "memory", "again"),
    [
        # 16x32 cells: 196 windows are 13 folds of rows, 128 filters 4 of columns, 576 elements 36 of rows.
        ("os", "input_sram_bytes", 3 * 64 * 14 * 14),
        ("os", "weight_sram_bytes", 12 * 9 * 64 * 128),
        ("os", "output_sram_bytes", 0),
        ("ws", "input_sram_bytes", 3 * 64 * 14 * 14),
        ("ws", "weight_sram_bytes", 0),
        ("ws", "output_sram_bytes", 35 * 2 * 4 * 128 * 14 * 14),
        # 196 windows are 7 folds of columns.
        ("is", "input_sram_bytes", 0),
        ("is", "weight_sram_bytes", 6 * 9 * 64 * 128),
        ("is", "output_sram_bytes", 35 * 2 * 4 * 128 * 14 * 14),
    ],
)
def test_what_does_not_fit_is_moved_again(flow, memory, again):
    layer = conv(64, 128, 14, 3, padding=1, bits=8)
    fits, small = costs(layer, flow, **{memory: MIB}), costs(layer, flow, **{memory: 1024})
    assert small.dram_bytes - fits.dram_bytes == again
    assert fits.dram_bytes == costs(layer, flow).dram_bytes


def test_an_operand_is_kept_where_one_group_of_it_fits_half_its_memory():
    layer = conv(64, 256, 14, groups=2, bits=8)
    group = 32 * 14 * 14
    assert costs(layer, "os", input_sram_bytes=2 * group).dram_bytes == costs(layer, "os").dram_bytes
    less = costs(layer, "os", input_sram_bytes=2 * group - 1).dram_bytes
    assert less - costs(layer, "os").dram_bytes == 3 * 2 * group
    spilled = costs(layer, "ws", output_sram_bytes=1024).dram_bytes - costs(layer, "ws").dram_bytes
    assert spilled == 2 * 4 * 256 * 14 * 14


def test_the_products_of_a_transposed_convolution_are_added_up_beside_the_array():
    layer = Layer("", "conv_transpose", 8, 24, 5, 5, (4, 4), (2, 2), (1, 1), out_size=(10, 10))
    compute = costs(layer, "ws").compute[0]
    assert compute - cycles(layer, 16, 32, "ws") == 5 * 5 * 24 * 4 * 4 / 16


def test_layers_beside_the_array_move_what_they_read_and_write():
    moved = [
        costs(vector(operator), "ws").dram_bytes[0] / (2 * 64 * 64) for operator in ("add", "norm", "relu")
    ]
    assert moved == [3, 2, 0]


@given(layers(), flows, st.floats(0.1, 1e3))
def test_stalls_are_what_the_transfer_lasts_beyond_the_compute(layer, flow, bytes_per_cycle):
    slow = Systolic(**ARRAY, dataflow=flow, bytes_per_cycle=bytes_per_cycle).costs(Columns([layer]))
    stall_free = Systolic(**ARRAY, dataflow=flow).costs(Columns([layer])).cycles
    assert slow.cycles - stall_free == max(0, np.ceil(slow.dram_bytes[0] / bytes_per_cycle) - stall_free[0])


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (vector("warp"), "layer 'warp': E2E-Perf does not model 'warp'"),
        (conv(3, 8, 4, 7), "layer 'conv': .* has no output"),
    ],
)
def test_a_layer_that_is_not_modelled_is_named(layer, what):
    with pytest.raises(MeasurementError, match=what):
        Systolic(**ARRAY, dataflow="os").costs(Columns([layer]))


@pytest.mark.parametrize(("rows", "cols", "flow"), [(0, 8, "os"), (8, -1, "os"), (8, 8, "rs")])
def test_an_array_that_cannot_be_is_refused(rows, cols, flow):
    with pytest.raises(UsageError, match="dataflows are os, ws, is"):
        systolic_cycles(Columns([conv(3, 8, 4)]), rows, cols, flow)
