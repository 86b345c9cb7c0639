"""The realistic generic paradigm: formulas by hand, properties, and published resources."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ehdnas.core.errors import MeasurementError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.e2e_perf.generic.costs import OPERATORS, design_costs
from ehdnas.profilers.e2e_perf.generic.design import Design, design_resources
from ehdnas.profilers.e2e_perf.generic.realistic import GenericRealistic
from ehdnas.profilers.e2e_perf.generic.tiling import operand_bytes
from ehdnas.profilers.e2e_perf.workload import Columns, Workload

OPTIONS = {
    "clock_mhz": 200, "cpf": 16, "kpf": 16, "pixel_parallel": 8, "vector_lanes": 64, "buffer_kb": 1024,
    "ddr_gbps": 10,
}  # fmt: skip
# DSP slices and LUTs of the DPU with few DSP slices, by pixels and channels: PG338 v1.2, table 9.
DPU = {
    (4, 8): (66, 20759), (4, 10): (102, 21050), (8, 8): (130, 29155), (4, 12): (146, 30043),
    (8, 10): (202, 33130), (8, 12): (290, 37055), (8, 14): (394, 41714), (8, 16): (514, 44583),
}  # fmt: skip


def conv(cin, cout, size, kernel=1, stride=1, groups=1, operator="conv", **more) -> Layer:
    pairs = ((value, value) for value in (kernel, stride, kernel // 2))
    return Layer("conv", operator, cin, cout, size, size, *pairs, groups=groups, **more)


def cost(layer, **changes):
    """Compute cycles, external bytes and all cycles of one layer."""
    found = GenericRealistic(**{**OPTIONS, **changes}).costs(Columns([layer]))
    return found.compute[0], found.dram_bytes[0], found.cycles[0]


@pytest.mark.parametrize(
    ("layer", "changes", "cycles"),
    [
        # 112 columns, 112 / 8 groups of rows, 49 taps, 1 input and 4 output groups of channels.
        (conv(3, 64, 224, 7, 2), {}, 112 * 14 * 49 * 1 * 4),
        # A row of 7 taps by 3 channels fills 21 lanes: 2 steps instead of 7.
        (conv(3, 64, 224, 7, 2), {"fold_kernel": True}, 112 * 14 * 7 * 2 * 4),
        (conv(48, 48, 14, 3), {"fold_kernel": True}, 14 * 2 * 9 * 3 * 3),
        # Four groups of 8 by 8 channels use a quarter of the lanes.
        (conv(32, 32, 16, 3, groups=4), {}, 16 * 2 * 9 * 4),
        (conv(32, 32, 16, 3, groups=32), {}, 16 * 2 * 9 * 32),
        (conv(32, 32, 16, 3, groups=32), {"depthwise_macs_per_cycle": 64}, 16 * 16 * 9 * 32 / 64),
        (conv(64, 64, 16), {"compute_efficiency": 0.5}, 2 * 16 * 2 * 4 * 4),
        (conv(16, 16, 8, 2, 2, operator="conv_transpose", out_size=(16, 16)), {}, 8 * 1 * 4),
        (Layer("fc", "linear", 2048, 1000, 1, 1), {}, 128 * 63),
        (Layer("fc", "linear", 64, 64, 20, 1), {}, 3 * 4 * 4),
        # Four heads of (20, 32) x (32, 20).
        (Layer("attention", "matmul", 128, 80, 20, 1, groups=4), {}, 3 * 2 * 2 * 4),
        (Layer("pool", "max_pool", 64, 64, 8, 8, (3, 3), (2, 2), (1, 1)), {}, 16 * 64 * 9 / 64),
        (Layer("pool", "global_pool", 64, 64, 7, 7, (7, 7)), {}, 49),
        (Layer("add", "add", 64, 64, 8, 8), {}, 64),
        (Layer("add", "add", 64, 64, 8, 8), {"fused_add": True}, 0),
        (Layer("softmax", "softmax", 64, 64, 8, 8), {}, 3 * 64),
    ],
)  # fmt: skip
def test_compute_cycles_by_hand(layer, changes, cycles) -> None:
    assert cost(layer, **changes)[0] == cycles


@pytest.mark.parametrize(
    ("layer", "changes", "moved"),
    [
        (conv(64, 32, 8), {}, 64 * 64 + 64 * 32 + 32 * 64),
        (conv(64, 32, 8), {"bits": 16}, 2 * (64 * 64 + 64 * 32 + 32 * 64)),
        (conv(64, 32, 8), {"bits": 4}, (64 * 64 + 64 * 32 + 32 * 64) / 2),
        # Both maps stay: only weights move. One KiB is too small for the input, of 4 KiB.
        (conv(64, 32, 8), {"maps_on_chip_kb": 4}, 64 * 32),
        (conv(64, 32, 8), {"maps_on_chip_kb": 2}, 64 * 64 + 64 * 32),
        (Layer("attention", "matmul", 128, 80, 20, 1, groups=4), {}, 128 * 20 + 128 * 20 + 80 * 20),
        (Layer("add", "add", 64, 64, 8, 8), {}, 3 * 4096),
        (Layer("add", "add", 64, 64, 8, 8), {"fused_add": True}, 4096),
        (Layer("pool", "max_pool", 64, 64, 8, 8, (2, 2), (2, 2)), {}, 4096 + 1024),
        (Layer("relu", "relu", 64, 64, 8, 8), {}, 0),
        (Layer("concat", "concat", 64, 64, 8, 8), {}, 0),
    ],
)
def test_external_bytes_by_hand(layer, changes, moved) -> None:
    assert cost(layer, **changes)[1] == moved


def test_a_layer_that_does_not_fit_reads_the_cheaper_operand_again() -> None:
    """16 KiB, halved: 8 rows of 16 pixels by 64 channels, or an eighth of 64 KiB of weights."""
    design = Design(200, 16, 16, 64, 16, 10, double_buffered=False)
    few_weights = Columns([conv(64, 160, 16)])  # 16 KiB of input in 2 strips, 10 KiB of weights in 2 groups
    assert operand_bytes(few_weights, design) == 16 * 1024 + 2 * 10 * 1024
    many_weights = Columns([conv(64, 1024, 16)])  # 64 KiB of weights in 8 groups: 2 strips are cheaper
    assert operand_bytes(many_weights, design) == 16 * 1024 + 2 * 64 * 1024
    small_input = Columns([conv(64, 1024, 8)])
    assert operand_bytes(small_input, design) == 4 * 1024 + 64 * 1024
    tall_input = Columns([conv(64, 144, 128)])  # 128 strips of one row each, against 2 groups of weights
    assert operand_bytes(tall_input, design) == 2 * 1024 * 1024 + 9 * 1024


def test_windows_of_strips_overlap() -> None:
    """Eight rows fit; a strip of them makes six, so the input of 16 rows is read in three."""
    design = Design(200, 16, 16, 64, 16, 10, double_buffered=False)
    assert operand_bytes(Columns([conv(64, 8, 16, 3)]), design) == 16384 + 2 * 2 * 1024 + 9 * 64 * 8


def test_double_buffering_hides_the_shorter_side_and_halves_the_room() -> None:
    layer = conv(64, 64, 32, 3)
    compute, moved, total = cost(layer)
    assert total == max(compute, moved / 50)
    assert moved == 2 * 64 * 1024 + 9 * 64 * 64
    compute, moved, total = cost(layer, double_buffered=False)
    assert total == compute + moved / 50


def test_half_of_each_share_holds_the_tile_that_computes() -> None:
    """64 KiB of input fill half of 128 KiB; halved again, 16 rows make 14, so there are three strips."""
    columns = Columns([conv(64, 32, 32, 3)])
    design = Design(200, 16, 16, 64, 128, 10)
    once = 64 * 1024 + 9 * 64 * 32
    assert operand_bytes(columns, replace(design, double_buffered=False)) == once
    assert operand_bytes(columns, design) == once + 2 * 2 * 32 * 64


def test_launches_and_hosts() -> None:
    model = GenericRealistic(**OPTIONS, layer_overhead_us=10, image_overhead_us=300)
    layers = (conv(3, 16, 8), Layer("relu", "relu", 16, 16, 8, 8), Layer("add", "add", 16, 16, 8, 8))
    assert model.costs(Columns(layers)).overhead.tolist() == [2000, 0, 2000]
    bare = GenericRealistic(**OPTIONS).simulate(LayerTable(layers)).latency_s
    assert model.simulate(LayerTable(layers)).latency_s == pytest.approx(bare + 320e-6)


def test_what_is_not_modelled_is_named() -> None:
    with pytest.raises(MeasurementError, match="'cell': E2E-Perf does not model 'lstm'"):
        GenericRealistic(**OPTIONS).costs(Columns([Layer("cell", "lstm", 8, 8, 1, 1)]))


@pytest.mark.parametrize(
    "bad",
    [{"cpf": 0}, {"ddr_efficiency": 1.1}, {"weight_share": 1}, {"bits": 5}, {"buffer_kb": float("inf")},
     {"layer_overhead_us": -1}, {"cbf": 3}],
)  # fmt: skip
def test_impossible_options_are_refused(bad) -> None:
    with pytest.raises(ValidationError):
        GenericRealistic(**{**OPTIONS, **bad})


@st.composite
def layers_(draw) -> Layer:
    operator = draw(st.sampled_from(sorted(OPERATORS - {"conv_transpose", "matmul", "linear"})))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    cin, cout = (groups * draw(st.integers(1, 100)) for _ in range(2))
    size, kernel = draw(st.integers(7, 60)), draw(st.sampled_from([1, 3, 5]))
    stride = draw(st.integers(1, 3))
    if operator != "conv":
        cout, groups = cin, 1
    return conv(cin, cout, size, kernel, stride, groups, operator)


@st.composite
def designs(draw) -> Design:
    return Design(
        clock_mhz=draw(st.floats(50, 1000)),
        cpf=draw(st.integers(1, 64)),
        kpf=draw(st.integers(1, 64)),
        vector_lanes=draw(st.integers(1, 128)),
        buffer_kb=draw(st.floats(8, 2048)),
        ddr_gbps=draw(st.floats(0.5, 50)),
        pixel_parallel=draw(st.integers(1, 16)),
        depthwise_macs_per_cycle=draw(st.sampled_from([0, 32])),
        fold_kernel=draw(st.booleans()),
        bits=draw(st.sampled_from([4, 8, 16])),
        weight_share=draw(st.floats(0.1, 0.9)),
        double_buffered=draw(st.booleans()),
        maps_on_chip_kb=draw(st.sampled_from([0.0, 64.0])),
        fused_add=draw(st.booleans()),
        layer_overhead_us=draw(st.floats(0, 50)),
    )


def together(many: list[Design]) -> Design:
    return Design(**{name: np.array([[getattr(one, name)] for one in many]) for name in vars(many[0])})


@settings(max_examples=60, deadline=None)
@given(st.lists(layers_(), min_size=1, max_size=6), st.lists(designs(), min_size=1, max_size=4))
def test_many_designs_at_once_cost_what_each_costs_alone(layers, many) -> None:
    columns, grid = Columns(layers), together(many)
    all_costs, resources = design_costs(columns, grid), design_resources(grid)
    for at, one in enumerate(many):
        for name, alone in vars(design_costs(columns, one)).items():
            if name == "apart":
                assert alone is all_costs.apart
                continue
            np.testing.assert_allclose(getattr(all_costs, name)[at], alone, rtol=1e-12)
        assert [float(part[at, 0]) for part in resources] == [float(part) for part in design_resources(one)]


@settings(max_examples=150, deadline=None)
@given(layers_(), designs(), st.floats(1, 4))
def test_a_better_design_is_never_slower_nor_a_miracle(layer, design, factor) -> None:
    columns = Columns([layer])
    base = design_costs(columns, design)
    lanes = np.asarray(max(design.depthwise_macs_per_cycle, design.macs_per_cycle))
    assert base.compute[0] * lanes >= layer.macs * (1 - 1e-12)
    assert base.cycles[0] >= max(base.compute[0], base.memory[0])
    for better in (
        {"ddr_gbps": design.ddr_gbps * factor},
        {"cpf": design.cpf * 2},
        {"kpf": design.kpf + 1},
        {"pixel_parallel": design.pixel_parallel + 1},
        {"buffer_kb": design.buffer_kb * factor},
        {"fold_kernel": True},
    ):
        found = design_costs(columns, replace(design, **better))
        assert found.cycles[0] <= base.cycles[0] * (1 + 1e-12), better


def test_a_population_is_timed_as_each_of_its_networks_is() -> None:
    model = GenericRealistic(**OPTIONS, image_overhead_us=20, layer_overhead_us=5)
    rng = np.random.default_rng(0)
    pool = [conv(16 * (1 + i), 32, 14 + i, 3) for i in range(20)]
    tables = [LayerTable(tuple(pool[i] for i in rng.integers(0, 20, 12))) for _ in range(30)]
    latency = model.figures(Workload.of_networks(tables)).latency_s
    np.testing.assert_allclose(latency, [model.simulate(table).latency_s for table in tables])


def test_speed() -> None:
    """20,000 networks a second, and 10,000 designs of 50 layers, with a wide margin on a shared machine."""
    layers = tuple(conv(8 * (1 + i % 10), 64, 7 + i, 3) for i in range(50))
    counts = np.random.default_rng(0).integers(0, 4, (20_000, 50))
    model = GenericRealistic(**OPTIONS)
    start = time.perf_counter()
    model.figures(Workload(layers, counts, np.zeros(20_000, dtype=np.int64)))
    assert time.perf_counter() - start < 1
    grid = Design(200, np.arange(1, 10_001)[:, None], 16, 64, 1024, 10)
    start = time.perf_counter()
    assert design_costs(Columns(layers), grid).cycles.shape == (10_000, 50)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("shape", DPU)
def test_resources_of_published_arrays(shape) -> None:
    """The DPU's DSP slices run at twice its clock; two of them besides the multipliers are not modelled."""
    pixels, channels = shape
    design = Design(300, channels, channels, 0, 1024, 10, pixel_parallel=pixels, dsp_clock_ratio=2)
    dsp, _, lut = design_resources(design)
    published_dsp, published_lut = DPU[shape]
    assert dsp == published_dsp - 2
    assert lut == pytest.approx(published_lut, rel=0.15)


def test_block_ram_of_a_published_array() -> None:
    """DPU B4096 with little RAM has 255 blocks of 36 Kbit (PG338 v4.1), partial sums not told apart."""
    design = GenericRealistic(**OPTIONS, dsp_clock_ratio=2).design
    sums = 8 * 16
    assert float(design_resources(design)[1]) - sums == pytest.approx(510, rel=0.05)


def test_bits_pack_macs_into_slices() -> None:
    dsp = [float(design_resources(Design(200, 16, 16, 0, 64, 10, bits=bits))[0]) for bits in (16, 8, 4)]
    assert dsp == [256, 128, 64]
