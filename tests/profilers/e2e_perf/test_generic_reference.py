"""E2E-Perf's generic paradigm against the figures published with EH-DNAS (arXiv 2111.12299)."""

import time

import numpy as np
import pytest

from ehdnas.core.device import Device, read_device
from ehdnas.core.errors import MeasurementError, UsageError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.base import find_profiler
from ehdnas.profilers.devices import builtin_devices
from ehdnas.profilers.e2e_perf.generic.slots import FIXED_CYCLES, SLOT_TABLE_OF, published_cycles, slot_cycles
from ehdnas.profilers.e2e_perf.profiler import E2EPerfProfiler
from ehdnas.profilers.e2e_perf.workload import Columns

CLOCK_HZ = 200e6
GENERIC = {
    "paradigm": "generic",
    "mode": "reference",
    "clock_mhz": 200,
    "macs_per_cycle": 4096,
    "elements_per_cycle": 25,
}
PUBLISHED_FPS = {
    "4434034004030011103103020300": 817.3,  # DARTS_V1
    "4444034003060011013103001300": 765.3,  # DARTS_V2
    "4436033003400011013013010700": 992.6,  # SNAS-mild
    "3630744003030011103103010300": 1079.6,  # EH-DNAS, generic
    "4630360703600011110110001300": 1047.9,  # EH-DNAS, pipeline
}
# (channels, height) of the six normal cells and the two reduction cells' inputs.
NORMAL = [(16, 32), (16, 32), (32, 16), (32, 16), (64, 8), (64, 8)]
REDUCTION = [(32, 32), (64, 16)]
# Published throughput of the cells' pre-processing, with memory time: 1x1 convolutions (in, out, size).
POINTWISE_FPS = {
    30220.6: [(48, 16, 32), (48, 16, 32)],
    26277.8: [(48, 16, 32), (64, 16, 32)],
    21413.3: [(64, 32, 32), (64, 32, 32)],
    32113.0: [(128, 32, 16), (128, 32, 16)],
    27731.6: [(128, 64, 16), (128, 64, 16)],
    46904.3: [(256, 64, 8), (256, 64, 8)],
}
HEAD = [Layer("pool", "global_pool", 256, 256, 8, 8, (8, 8)), Layer("classifier", "linear", 256, 10, 1, 1)]
MAX_POOL, AVG_POOL, SKIP, SEP_3, SEP_5, DIL_3, DIL_5 = range(1, 8)


@pytest.fixture(scope="module")
def generic() -> E2EPerfProfiler:
    return find_profiler(read_device(builtin_devices()["ehdnas-generic"]))


def digits(text: str) -> list[int]:
    return [int(digit) for digit in text]


def conv(cin, cout, size, kernel=1, stride=1, padding=0, dilation=1, groups=1) -> Layer:
    pairs = [(value, value) for value in (kernel, stride, padding, dilation)]
    return Layer(f"conv{kernel}x{kernel}", "conv", cin, cout, size, size, *pairs, groups)


def pool(channels, size, stride=1, operator="max_pool") -> Layer:
    return Layer(operator, operator, channels, channels, size, size, (3, 3), (stride, stride), (1, 1))


def separable(channels, size, kernel, stride, dilation) -> list[Layer]:
    padding = dilation * (kernel - 1) // 2
    depthwise = conv(channels, channels, size, kernel, stride, padding, dilation, channels)
    return [depthwise, conv(channels, channels, size // stride)]


def factorised_reduce(cin, cout, size) -> list[Layer]:
    # The second half is given the map without its first row and column.
    return [conv(cin, cout // 2, size, stride=2), conv(cin, cout // 2, size - 1, stride=2)]


def operation(choice: int, channels: int, size: int, stride: int) -> list[Layer]:
    if choice in (MAX_POOL, AVG_POOL):
        return [pool(channels, size, stride, "max_pool" if choice == MAX_POOL else "avg_pool")]
    if choice == SKIP:
        return factorised_reduce(channels, channels, size) if stride == 2 else []
    kernel, dilation = {SEP_3: (3, 1), SEP_5: (5, 1), DIL_3: (3, 2), DIL_5: (5, 2)}[choice]
    layers = separable(channels, size, kernel, stride, dilation)
    return layers if dilation == 2 else layers + separable(channels, size // stride, kernel, 1, 1)


def slot_layers(slot: int, choice: int) -> list[Layer]:
    """The layers that a choice adds to a network of 16 channels and 8 cells, over all its cells."""
    if slot < 14:
        return [layer for channels, size in NORMAL for layer in operation(choice, channels, size, 1)]
    strided = slot - 14 in (0, 1, 2, 3, 5, 6, 9, 10)
    size_of, stride = ((lambda size: size), 2) if strided else ((lambda size: size // 2), 1)
    return [layer for c, size in REDUCTION for layer in operation(choice, c, size_of(size), stride)]


def each(generic, layers) -> list[int]:
    return generic.accelerator.costs(Columns(layers)).cycles.astype(int).tolist()


def cycles(generic, layers) -> int:
    return sum(each(generic, layers))


@pytest.mark.parametrize(("text", "fps"), PUBLISHED_FPS.items())
def test_the_slot_table_gives_the_published_throughput(text, fps):
    assert round(CLOCK_HZ / published_cycles(np.array([digits(text)]))[0], 1) == fps


def test_the_slot_table_gives_the_published_distribution():
    # The paper's sampler: two distinct edges a node, on them two distinct choices of 1 to 6.
    rng = np.random.default_rng(0)
    choices = np.zeros((20_000, 28), dtype=np.int64)
    for start, size in [(cell + edge, n) for cell in (0, 14) for edge, n in ((0, 2), (2, 3), (5, 4), (9, 5))]:
        edges = rng.permuted(np.tile(np.arange(size), (len(choices), 1)), axis=1)[:, :2] + start
        drawn = rng.permuted(np.tile(np.arange(1, 7), (len(choices), 1)), axis=1)[:, :2]
        np.put_along_axis(choices, edges, drawn, axis=1)
    drawn = published_cycles(choices)
    assert drawn.mean() == pytest.approx(258_251, rel=0.005)
    assert drawn.std() == pytest.approx(44_660, rel=0.02)
    assert np.percentile(drawn, [5, 50, 95]) == pytest.approx([186_113, 257_346, 333_443], rel=0.01)


@pytest.mark.parametrize(
    ("choices", "what"),
    [
        (np.zeros((1, 27), int), r"needs \[n, 28\]"),
        (np.zeros(28, int), r"needs \[n, 28\]"),
        (np.full((1, 28), 8), "0 to 7"),
    ],
)
def test_the_slot_table_refuses_what_is_no_network(choices, what):
    with pytest.raises(UsageError, match=what):
        published_cycles(choices)


def test_the_slot_table_answers_an_empty_batch():
    assert published_cycles(np.zeros((0, 28), int)).shape == (0,)


@pytest.mark.parametrize("choice", [MAX_POOL, AVG_POOL])
def test_pools_are_exact(generic, choice):
    for slot in (0, 14, 18):
        assert cycles(generic, slot_layers(slot, choice)) == slot_cycles()[slot, choice]


@pytest.mark.parametrize(("fps", "shapes"), POINTWISE_FPS.items())
def test_pointwise_convolutions_are_exact(generic, fps, shapes):
    assert cycles(generic, [conv(*shape) for shape in shapes]) == pytest.approx(CLOCK_HZ / fps, rel=4e-4)


@pytest.mark.parametrize("slot", [0, 14, 18])
@pytest.mark.parametrize("choice", [DIL_3, DIL_5])
def test_depthwise_with_pointwise_is_within_three_in_a_thousand(generic, slot, choice):
    assert cycles(generic, slot_layers(slot, choice)) == pytest.approx(slot_cycles()[slot, choice], rel=3e-3)


@pytest.mark.parametrize("slot", [0, 18])
@pytest.mark.parametrize("choice", [SEP_3, SEP_5])
def test_separable_convolutions_are_within_three_in_a_thousand(generic, slot, choice):
    assert cycles(generic, slot_layers(slot, choice)) == pytest.approx(slot_cycles()[slot, choice], rel=3e-3)


@pytest.mark.parametrize("choice", [SEP_3, SEP_5])
def test_strided_separable_convolutions_are_within_three_in_a_thousand(generic, choice):
    assert cycles(generic, slot_layers(14, choice)) == pytest.approx(slot_cycles()[14, choice], rel=3e-3)


@pytest.mark.parametrize(
    ("fps", "shape", "others", "error"),
    [
        (43149.9, (32, 32, 32), [], 2e-3),
        (73746.3, (64, 64, 16), [], 2e-3),
        (18479.2, (64, 32, 32), [(128, 32, 16)], 0.045),
        (29877.5, (128, 64, 16), [(256, 64, 8)], 2e-3),
    ],
)
def test_factorised_reduce_is_close_but_for_one_shape(generic, fps, shape, others, error):
    layers = factorised_reduce(*shape) + [conv(*other) for other in others]
    assert cycles(generic, layers) == pytest.approx(CLOCK_HZ / fps, rel=error)


def test_stem_pool_and_classifier(generic):
    assert cycles(generic, [conv(3, 48, 32, 3, 1, 1)]) == pytest.approx(3080, rel=1e-3)
    assert cycles(generic, HEAD) == 2544


def test_whole_networks_are_within_three_in_a_thousand_of_the_published(generic):
    pointwise = [conv(*shape) for shapes in POINTWISE_FPS.values() for shape in shapes]
    around = [
        conv(3, 48, 32, 3, 1, 1),
        *pointwise,
        *factorised_reduce(64, 32, 32),
        conv(128, 32, 16),
        *factorised_reduce(128, 64, 16),
        conv(256, 64, 8),
        *HEAD,
    ]
    assert cycles(generic, around) == pytest.approx(FIXED_CYCLES, rel=0.01)
    for text, fps in PUBLISHED_FPS.items():
        chosen = [
            layer for slot, choice in enumerate(digits(text)) if choice for layer in slot_layers(slot, choice)
        ]
        found = generic.simulate(LayerTable((*around, *chosen)))
        assert found.metric("throughput_fps") == pytest.approx(fps, rel=0.003)


def test_dilation_and_groups_do_not_change_the_published_cost(generic):
    plain, dilated = conv(16, 16, 32, 3, 1, 1, 1, 16), conv(16, 16, 32, 3, 1, 2, 2, 16)
    assert each(generic, [plain]) == each(generic, [dilated])
    # 5x5 on 64 channels of 8x8: 25·64²·8²/4096 = 1600 cycles of dense compute, though it is depthwise.
    assert cycles(generic, [conv(64, 64, 8, 5, 1, 2, 1, 64)]) > 1600


def test_arithmetic_free_operators_cost_nothing_and_the_rest_add_up(generic):
    free = [Layer(name, name, 16, 16, 32, 32) for name in ("relu", "add", "mul", "concat")]
    costly = [conv(16, 16, 32), pool(16, 32), Layer("fc", "linear", 256, 10, 1, 1)]
    found = each(generic, [free[0], costly[0], free[1], costly[1], costly[2], *free[2:]])
    assert found == [0, *each(generic, costly[:1]), 0, *each(generic, costly[1:]), 0, 0]
    assert each(generic, []) == []


def test_height_and_width_are_not_confused(generic):
    wide = Layer("c", "conv", 8, 8, 16, 64, (3, 3), (1, 1), (1, 1))
    # Lw 24, Lin 18·66·8/25 = 381, Lout 16·64·8/25 = 328, one tile; halo 2·(66+3)·8/25 = 45.
    assert each(generic, [wide]) == [24 + 381 + 381 + 328 + 45]


def test_simulate_is_never_called_measured(generic):
    found = generic.simulate(LayerTable((conv(48, 16, 32),)))
    assert found.basis == "simulated" and found.statistics is None and found.samples_ms == []
    assert found.metric("latency_ms") == pytest.approx(3310 / 200e3)
    assert found.metric("throughput_fps") == pytest.approx(CLOCK_HZ / 3310)
    assert found.passport["mode"] == "reference"


def test_published_figures_are_given_for_their_own_space_and_shape_alone(generic):
    choices = digits("4444034003060011013103001300")
    found = generic.published(*SLOT_TABLE_OF, choices)
    assert found.basis == "simulated" and round(found.metric("throughput_fps"), 1) == 765.3
    space, shape = SLOT_TABLE_OF
    assert generic.published(space, shape.replace("c16", "c36"), choices) is None
    assert generic.published("other", shape, choices) is None
    assert E2EPerfProfiler(device(GENERIC)).published(*SLOT_TABLE_OF, choices) is None


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (
            LayerTable((Layer("cells.3.lstm", "lstm", 8, 8, 1, 1),)),
            "'cells.3.lstm': E2E-Perf does not model 'lstm'",
        ),
        (
            LayerTable((conv(8, 8, 8),), (("aten.gelu", "mlp.act"),)),
            r"'mlp.act': E2E-Perf does not model 'aten\.gelu'",
        ),
        (LayerTable(()), "nothing to time"),
        (LayerTable((conv(8, 8, 2, 5),)), "'conv5x5': a conv of 8 to 8 channels, .* on 2x2 has no output"),
        (LayerTable((conv(8, 0, 8),)), "8 to 0 channels"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(generic, table, what):
    with pytest.raises(MeasurementError, match=what):
        generic.simulate(table)


def device(options: dict) -> Device:
    return Device(name="mine", kind="e2e_perf", title="Mine", options=options)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"macs_per_cycl": 1}, "'mine': unknown option 'macs_per_cycl'; did you mean 'macs_per_cycle'"),
        ({"macs_per_cycle": 0}, "'mine': option 'macs_per_cycle': Input should be greater than 0"),
        ({"clock_mhz": -200}, "'mine': option 'clock_mhz': Input should be greater than 0"),
        ({"elements_per_cycle": float("inf")}, "'mine': option 'elements_per_cycle'"),
        ({"clock_mhz": "fast"}, "'mine': option 'clock_mhz'"),
        ({"slot_table": "theirs"}, "'mine': option 'slot_table'"),
        ({"paradigm": "generik"}, "option 'paradigm' is 'generik'; did you mean 'generic'"),
        ({"mode": "exact"}, "option 'mode' is 'exact'; known: realistic, reference"),
        ({"mode": ["reference"]}, "option 'mode'"),
    ],
)
def test_impossible_options_name_the_key_and_the_device(change, what):
    with pytest.raises(UsageError, match=what) as caught:
        E2EPerfProfiler(device({**GENERIC, **change}))
    assert "\n" not in str(caught.value)


def test_a_missing_option_is_named():
    with pytest.raises(UsageError, match="option 'macs_per_cycle': Field required"):
        E2EPerfProfiler(device({key: value for key, value in GENERIC.items() if key != "macs_per_cycle"}))


def test_a_hundred_thousand_networks_a_second():
    choices = np.random.default_rng(0).integers(0, 8, (50_000, 28))
    begin = time.process_time()
    published_cycles(choices)
    assert time.process_time() - begin < 0.5
