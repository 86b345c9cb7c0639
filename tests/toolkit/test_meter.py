"""Figures of architectures: parts add up to the network, and what is stored is not measured again."""

import pytest

from ehdnas.core.graph import layer_table
from ehdnas.core.measurement import Measurement
from ehdnas.pipeline.conditions import conditions
from ehdnas.pipeline.devices import find_device
from ehdnas.pipeline.meter import Instrument, Meter
from ehdnas.profilers.protocol import QUICK, STANDARD
from ehdnas.profilers.store.store import MeasurementStore
from ehdnas.search.spaces.base import NetworkShape, find_space

SPACE = find_space("darts")
SHAPE = NetworkShape(4, 5, (3, 16, 16), 10)


@pytest.fixture(scope="module")
def instrument():
    return Instrument(find_device("ehdnas-generic"), SPACE, SHAPE, STANDARD)


@pytest.mark.parametrize("name", ["DARTS_V2", "GDAS_V1", "EHDNAS_GENERIC"])
@pytest.mark.parametrize("shape", [SHAPE, NetworkShape(4, 3, (3, 64, 64), 10, "imagenet")], ids=str)
def test_parts_cost_what_the_whole_network_does(name, shape):
    instrument = Instrument(find_device("ehdnas-generic"), SPACE, shape, STANDARD)
    architecture = SPACE.parse(name)
    whole = instrument.profiler.simulate(layer_table(SPACE.network(architecture, shape), shape.image))
    assert instrument.take(architecture).metrics == pytest.approx(whole.metrics, rel=1e-9)
    assert (
        instrument.costed.table(architecture).macs
        == layer_table(SPACE.network(architecture, shape), shape.image).macs
    )


def test_the_published_table_answers_for_its_own_shape_only(instrument):
    published = NetworkShape(16, 8, (3, 32, 32), 10)
    of_table = Instrument(find_device("ehdnas-generic"), SPACE, published, STANDARD).take(SPACE.reference)
    assert of_table.passport["by"] == "the published slot table"
    assert of_table.metric("throughput_fps") == pytest.approx(765.3, abs=0.05)
    assert instrument.take(SPACE.reference).passport["by"] == "the layer formulas"


class Counting(Instrument):
    taken = 0

    def take(self, architecture):
        self.taken += 1
        return Measurement(device="ehdnas-generic", basis="simulated", metrics={"latency_ms": 1.0})


def test_what_is_stored_is_not_measured_again(tmp_path):
    counting = Counting(find_device("ehdnas-generic"), SPACE, SHAPE, STANDARD)
    for _ in range(2):
        meter = Meter(counting, MeasurementStore(tmp_path / "m.db"))
        assert meter.measure(SPACE.reference).metric("latency_ms") == 1.0
    assert counting.taken == 1
    assert meter.measured() == [(SPACE.reference, meter.measure(SPACE.reference))]


def test_another_protocol_or_accelerator_is_another_measurement():
    local = find_device("local")
    texts = {
        conditions(device, protocol)
        for device in (local, local.model_copy(update={"threads": 2}), find_device("local-onnx"))
        for protocol in (STANDARD, QUICK)
    }
    assert len(texts) == 6
    int8 = local.model_copy(update={"precision": "int8"})
    pinned = local.model_copy(update={"options": {"cpus": [0]}})
    reached = local.model_copy(update={"options": {"python": "python3", "hottest_c": 60}})
    told = [conditions(one, STANDARD) for one in (local, int8, pinned, reached)]
    assert len(set(told)) == 3 and told[0] == told[3]
    generic = find_device("ehdnas-generic")
    faster = generic.model_copy(update={"options": {**generic.options, "clock_mhz": 300}})
    assert conditions(generic, STANDARD) != conditions(faster, STANDARD)
