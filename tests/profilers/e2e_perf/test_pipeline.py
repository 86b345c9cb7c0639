"""The realistic pipeline: what it uses, that exploring never loses, and that a better board never does."""

from itertools import product

import numpy as np
import pytest
from accelerators import BOARDS, networks
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ehdnas.core.errors import MeasurementError, UsageError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.e2e_perf.boards import Board, board_names, find_board
from ehdnas.profilers.e2e_perf.packing import bram18
from ehdnas.profilers.e2e_perf.pipeline.allocation import controllers
from ehdnas.profilers.e2e_perf.pipeline.realistic import MOST_REPLICAS, Pipeline
from ehdnas.profilers.e2e_perf.pipeline.stages import edge_bytes, stage_options
from ehdnas.profilers.e2e_perf.workload import Workload

CONV = Layer("conv", "conv", 16, 32, 14, 14, (3, 3), (1, 1), (1, 1))


def pipeline(board: Board | str, **options) -> Pipeline:
    return Pipeline(**{"clock_mhz": 200, "board": board, **options})


def explored(accelerator: Pipeline, table: LayerTable):
    """The explored simulation, or None where nothing fits."""
    try:
        return accelerator.explored(table)
    except MeasurementError:
        return None


@given(networks(), BOARDS, st.sampled_from([4, 8, 16]))
@settings(max_examples=150, deadline=None)
def test_a_design_never_uses_more_than_the_board_has(table, board, bits):
    accelerator = pipeline(board, bits=bits)
    for found in (
        explored(accelerator, table),
        explored(accelerator.model_copy(update={"explore": True}), table),
    ):
        if found is not None:
            assert found.resources.dsp <= board.dsp
            assert found.resources.bram18 <= board.bram18
            assert found.resources.lut <= board.lut
            assert found.dram_gbps <= board.ddr_gbps * (1 + 1e-9)


@given(
    networks(), BOARDS, st.sampled_from(["dsp", "bram18", "lut", "ddr_gbps", "clock_mhz"]), st.floats(1, 4)
)
@settings(max_examples=150, deadline=None)
def test_more_of_anything_never_slows_an_explored_design(table, board, what, factor):
    before = explored(pipeline(board), table)
    assume(before is not None)
    if what == "clock_mhz":
        better = pipeline(board, clock_mhz=200 * factor)
    else:
        amount = getattr(board, what) * factor
        better = pipeline(board.model_copy(update={what: amount if what == "ddr_gbps" else int(amount)}))
    assert better.explored(table).throughput_fps >= before.throughput_fps * (1 - 1e-9)


def best_of_all(table: LayerTable, accelerator: Pipeline) -> float:
    """The throughput of the best of every combination of options and replicas, tried one by one."""
    limits, bits = accelerator.limits, accelerator.bits
    stages = [stage_options(layer, bits, accelerator.widest) for layer in table.layers]
    dsp, lut = (part.sum() for part in controllers(table.layers))
    edges, best = edge_bytes(table.layers, bits).sum(), 0.0
    for picks in product(*(range(len(stage)) for stage in stages)):
        spent = sum(stage.costs()[pick] for stage, pick in zip(stages, picks, strict=True))
        slowest = max(stage.cycles[pick] for stage, pick in zip(stages, picks, strict=True))
        for replicas in range(1, MOST_REPLICAS + 1):
            used = (dsp + replicas * spent[0], spent[3] + replicas * spent[2], lut + replicas * spent[1])
            if used[0] <= limits.dsp and used[1] <= limits.bram18 and used[2] <= limits.lut:
                moved = (spent[4] + replicas * edges) / limits.bytes_per_cycle
                best = max(best, replicas / max(slowest, moved))
    return best * accelerator.clock_mhz * 1e6


@given(networks(most=2), BOARDS)
@settings(max_examples=40, deadline=None)
def test_exploring_is_never_worse_than_trying_everything(table, board):
    accelerator = pipeline(board, widest=8)
    found, best = explored(accelerator, table), best_of_all(table, accelerator)
    assert (found is None) == (best == 0)
    if found is not None:
        assert found.throughput_fps >= best * (1 - 1e-9)


@given(st.lists(networks(), min_size=1, max_size=5), BOARDS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_population_gives_what_each_network_gives_alone(tables, board, explore):
    accelerator = pipeline(board, explore=explore)
    together = accelerator.figures(Workload.of_networks(tables))
    for at, table in enumerate(tables):
        try:
            alone = accelerator.simulate(table)
        except MeasurementError:
            assert np.isnan(together.throughput_fps[at])
        else:
            assert together.throughput_fps[at] == pytest.approx(alone.throughput_fps)
            assert together.latency_s[at] == pytest.approx(alone.latency_s)


@given(networks())
@settings(max_examples=50, deadline=None)
def test_no_layer_is_faster_than_its_multipliers(table):
    found = pipeline("u250").explored(table)
    for row, layer in zip(found.layers, table.layers, strict=True):
        if layer.macs:
            assert row.cycles >= layer.macs / (row.design["cpf"] * row.design["kpf"])


def test_what_is_short_is_said_with_how_much():
    small = Board(dsp=100, bram18=10, lut=50_000, ddr_gbps=1)
    with pytest.raises(
        MeasurementError, match=r"blocks of 18 Kbit at least, 9 usable, [\d,]+ short"
    ) as caught:
        pipeline(small).simulate(LayerTable((CONV,) * 12))
    assert "\n" not in str(caught.value)


def test_what_no_stage_does_is_refused_by_layer():
    table = LayerTable((CONV, Layer("encoder.attention", "softmax", 8, 8, 4, 1)))
    with pytest.raises(MeasurementError, match=r"'encoder\.attention': E2E-Perf does not model 'softmax'"):
        pipeline("zcu102").simulate(table)


@pytest.mark.parametrize(
    ("width", "depth", "blocks"),
    [
        (1, 16_384, 1),
        (1, 16_385, 2),
        (36, 512, 1),
        (37, 512, 2),
        (72, 512, 2),
        (73, 512, 3),
        (128, 512, 4),
        (0, 9, 0),
    ],
)
def test_memories_are_packed_into_blocks(width, depth, blocks):
    assert bram18(np.array(width), np.array(depth)) == blocks


def test_boards_are_found_and_described():
    assert {"pynq-z2", "zcu102", "ku115", "u250"} <= set(board_names())
    assert all(find_board(name, "x").dsp > 0 for name in board_names())
    assert find_board({"dsp": 1, "bram18": 1, "lut": 1, "ddr_gbps": 1.0}, "x").uram == 0


@pytest.mark.parametrize("name", board_names())
def test_a_board_says_of_every_figure_whether_a_source_confirms_it(name):
    board = find_board(name, "x")
    figures = {"dsp", "bram18", "lut", "ddr_gbps"} | ({"uram"} if board.uram else set())
    assert set(board.sources) | set(board.unverified) == figures
    assert not set(board.sources) & set(board.unverified)
    assert all(board.sources.values())


@pytest.mark.parametrize(
    ("description", "what"),
    [
        ("zcu1", "device 'mine': unknown board 'zcu1'; did you mean 'zcu1"),
        (
            {"dsp": 0, "bram18": 1, "lut": 1, "ddr_gbps": 1},
            "board: key 'dsp': Input should be greater than 0",
        ),
        ({"dsp": 1, "bram18": -1, "lut": 1, "ddr_gbps": 1}, "board: key 'bram18'"),
        ({"dsp": 1, "bram18": 1, "lut": 1}, "board: key 'ddr_gbps': Field required"),
        ({"dps": 1}, "board: unknown key 'dps'; did you mean 'dsp'"),
    ],
)
def test_an_impossible_board_is_refused_by_key(description, what):
    with pytest.raises(UsageError, match=what):
        find_board(description, "device 'mine'")
