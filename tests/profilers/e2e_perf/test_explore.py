"""Exploring a generic accelerator: what it uses, that it never loses, and that a better board never does."""

import numpy as np
import pytest
from accelerators import BOARDS, networks
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ehdnas.core.device import Device
from ehdnas.core.errors import MeasurementError, UsageError
from ehdnas.core.layers import LayerTable
from ehdnas.profilers.e2e_perf.boards import Board
from ehdnas.profilers.e2e_perf.generic.design import design_resources
from ehdnas.profilers.e2e_perf.generic.explore import BUFFERS_KB, CHANNELS, DEPTHWISE, PIXELS, WEIGHT_SHARES
from ehdnas.profilers.e2e_perf.generic.realistic import GenericRealistic
from ehdnas.profilers.e2e_perf.profiler import E2EPerfProfiler
from ehdnas.profilers.e2e_perf.workload import Workload

BASE = {"clock_mhz": 200, "cpf": 4, "kpf": 4, "vector_lanes": 16, "buffer_kb": 32}


def generic(board: Board, **options) -> GenericRealistic:
    return GenericRealistic(**{**BASE, "board": board, "explore": True, **options})


def explored(accelerator: GenericRealistic, table: LayerTable):
    """The explored simulation, or None where nothing fits."""
    try:
        return accelerator.explored(table)
    except MeasurementError:
        return None


@given(networks(), BOARDS, st.sampled_from([4, 8, 16]))
@settings(max_examples=60, deadline=None)
def test_a_design_never_uses_more_than_the_board_has(table, board, bits):
    found = explored(generic(board, bits=bits), table)
    if found is not None:
        assert found.resources.dsp <= board.dsp
        assert found.resources.bram18 <= board.bram18
        assert found.resources.lut <= board.lut
        assert found.dram_gbps <= board.ddr_gbps * (1 + 1e-9)


@given(
    networks(), BOARDS, st.sampled_from(["dsp", "bram18", "lut", "ddr_gbps", "clock_mhz"]), st.floats(1, 4)
)
@settings(max_examples=60, deadline=None)
def test_more_of_anything_never_slows_an_explored_design(table, board, what, factor):
    before = explored(generic(board), table)
    assume(before is not None)
    if what == "clock_mhz":
        better = generic(board, clock_mhz=200 * factor)
    else:
        amount = getattr(board, what) * factor
        better = generic(board.model_copy(update={what: amount if what == "ddr_gbps" else int(amount)}))
    assert better.explored(table).latency_s <= before.latency_s * (1 + 1e-9)


@given(networks(most=3), BOARDS, st.data())
@settings(max_examples=60, deadline=None)
def test_no_design_of_the_grid_that_fits_is_faster(table, board, data):
    """Exhaustive by sampling: whatever single design is drawn, it does not fit, or it is not faster."""
    found = explored(generic(board), table)
    drawn = {
        "cpf": data.draw(st.sampled_from(CHANNELS)),
        "kpf": data.draw(st.sampled_from(CHANNELS)),
        "pixel_parallel": data.draw(st.sampled_from(PIXELS)),
        "buffer_kb": data.draw(st.sampled_from(BUFFERS_KB)),
        "weight_share": data.draw(st.sampled_from(WEIGHT_SHARES)),
        "depthwise_macs_per_cycle": data.draw(st.sampled_from(DEPTHWISE)),
    }
    one = generic(board).model_copy(update={**drawn, "explore": False})
    used = [float(part) for part in design_resources(one.design)]
    limits = [np.floor(0.95 * limit) for limit in (board.dsp, board.bram18, board.lut)]
    if all(part <= limit for part, limit in zip(used, limits, strict=True)):
        assert found is not None
        assert found.latency_s <= one.simulate(table).latency_s * (1 + 1e-9)


@given(st.lists(networks(), min_size=1, max_size=4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_population_gives_what_each_network_gives_alone(tables, explore):
    board = Board(dsp=2520, bram18=1824, lut=274_080, ddr_gbps=19.2)
    accelerator = generic(board, explore=explore)
    together = accelerator.figures(Workload.of_networks(tables))
    alone = [accelerator.simulate(table).latency_s for table in tables]
    assert together.latency_s == pytest.approx(alone)


def test_bandwidth_comes_from_the_board_unless_given():
    board = {"dsp": 2520, "bram18": 1824, "lut": 274_080, "ddr_gbps": 19.2}
    assert GenericRealistic(**BASE, board=board).ddr_gbps == 19.2
    assert GenericRealistic(**BASE, board=board, ddr_gbps=4.0).ddr_gbps == 4.0


def test_a_board_is_a_name_or_a_table_and_sets_the_bandwidth_there_is():
    with pytest.raises(UsageError, match="option 'board': give a board's name or a table"):
        GenericRealistic(**BASE, board=3)
    with pytest.raises(UsageError, match="option 'ddr_gbps': 50, but the board has 4"):
        GenericRealistic(**BASE, ddr_gbps=50, board=Board(dsp=100, bram18=1000, lut=200_000, ddr_gbps=4))


def test_a_design_that_does_not_fit_its_board_says_what_is_short():
    board = Board(dsp=100, bram18=1000, lut=200_000, ddr_gbps=4)
    with pytest.raises(MeasurementError, match="DSP slices needed, 95 usable, 417 short"):
        GenericRealistic(**{**BASE, "cpf": 16, "kpf": 64, "board": board})


@pytest.mark.parametrize("name", ["cpf", "kpf", "vector_lanes", "buffer_kb", "clock_mhz"])
def test_absurd_sizes_are_refused_by_key(name):
    device = Device(
        name="mine", kind="e2e_perf", title="Mine",
        options={"paradigm": "generic", "mode": "realistic", **BASE, "ddr_gbps": 4, name: 1_000_000_000},
    )  # fmt: skip
    with pytest.raises(UsageError, match=f"option '{name}': Input should be less than or equal to"):
        E2EPerfProfiler(device)


def test_without_a_board_there_is_nothing_to_explore():
    alone = GenericRealistic(**BASE, ddr_gbps=4)
    with pytest.raises(UsageError, match="give it a `board`"):
        alone.explored(LayerTable(()))
