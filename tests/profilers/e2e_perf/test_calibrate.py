"""Calibration: known terms come back, and what cannot be fitted or read is refused in one line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.errors import DataError, MeasurementError, UsageError
from ehdnas.core.layers import Layer, LayerTable
from ehdnas.profilers.e2e_perf.calibrate import FREE_TERMS, calibrate, read_calibration
from ehdnas.profilers.e2e_perf.generic.realistic import GenericRealistic

DEVICE = GenericRealistic(
    clock_mhz=200, cpf=16, kpf=16, pixel_parallel=8, vector_lanes=64, buffer_kb=512, ddr_gbps=10
)
ALL = tuple(FREE_TERMS)


def network(*convs) -> LayerTable:
    return LayerTable(
        tuple(
            Layer("", "conv", cin, cout, size, size, (k, k), padding=(k // 2, k // 2))
            for cin, cout, size, k in convs
        )
    )


# Bound by compute, by weights, by feature maps, and by launches.
NETWORKS = [
    network((256, 256, 28, 3), (256, 256, 28, 3)),
    network((2048, 2048, 1, 1), (4096, 2048, 1, 1)),
    network((16, 16, 112, 1), (16, 16, 112, 1), (128, 128, 28, 3)),
    network(*[(16, 16, 4, 1)] * 30),
    network(*[(32, 32, 8, 3)] * 6),
]


def measured(device, networks=NETWORKS):
    return [(table, device.simulate(table).latency_s * 1e3) for table in networks]


@settings(max_examples=12, deadline=None)
@given(
    st.floats(1, 100), st.floats(20, 2000), st.floats(0.1, 0.95), st.floats(0.3, 0.95),
)  # fmt: skip
def test_known_terms_come_back(launch, host, memory, compute) -> None:
    values = dict(zip(ALL, (launch, host, memory, compute), strict=True))
    truth = DEVICE.model_copy(update=values)
    found = calibrate(DEVICE, measured(truth), ALL)
    assert np.abs(found.residuals).max() < 1e-4
    for term, value in values.items():
        assert getattr(found.model, term) == pytest.approx(value, rel=0.02), term


def test_residuals_are_relative_errors_of_the_fitted_model() -> None:
    rows = [(table, latency * (1.1 if at else 1)) for at, (table, latency) in enumerate(measured(DEVICE))]
    found = calibrate(DEVICE, rows, ["image_overhead_us"])
    again = [found.model.simulate(table).latency_s * 1e3 / latency - 1 for table, latency in rows]
    np.testing.assert_allclose(found.residuals, again, atol=1e-9)
    assert 0 < np.abs(found.residuals).max() < 0.1


def test_a_term_that_the_rows_do_not_settle_is_named() -> None:
    bound_by_weights = measured(DEVICE, NETWORKS[1:2] * 2)
    assert calibrate(DEVICE, bound_by_weights, ["ddr_efficiency"]).undetermined == ("ddr_efficiency",)
    bound_by_compute = measured(DEVICE.model_copy(update={"compute_efficiency": 0.5}), NETWORKS[:1] * 2)
    found = calibrate(DEVICE, bound_by_compute, ["compute_efficiency", "ddr_efficiency"])
    assert found.model.compute_efficiency == pytest.approx(0.5, rel=1e-3)
    assert found.undetermined == ("ddr_efficiency",)


def test_terms_that_undo_one_another_are_named() -> None:
    """Networks of one layer each: a launch and the host's time cannot be told apart."""
    alike = [network((256, 256, 28, 3)), network((128, 128, 28, 3)), network((64, 64, 28, 3))]
    rows = measured(DEVICE.model_copy(update={"layer_overhead_us": 40.0, "compute_efficiency": 0.5}), alike)
    free = ["layer_overhead_us", "image_overhead_us", "compute_efficiency"]
    assert set(calibrate(DEVICE, rows, free).undetermined) >= {"layer_overhead_us", "image_overhead_us"}
    assert "compute_efficiency" not in calibrate(DEVICE, rows, free).undetermined
    assert calibrate(DEVICE, rows, [free[0], free[2]]).undetermined == ()


@pytest.mark.parametrize(
    ("rows", "free", "error", "message"),
    [
        (measured(DEVICE)[:1], ALL[:2], UsageError, "1 measured networks cannot settle 2 free terms"),
        (measured(DEVICE), ["ddr_eficiency"], UsageError, "did you mean 'ddr_efficiency'"),
        (measured(DEVICE), [], UsageError, "give each term to fit once"),
        (measured(DEVICE), [ALL[0]] * 2, UsageError, "give each term to fit once"),
        ([(NETWORKS[0], 1.0), (NETWORKS[1], -2.0)], ALL[:1], DataError, "row 2: latency_ms is -2"),
        ([(NETWORKS[0], 0.0)], ALL[:1], DataError, "row 1: latency_ms is 0"),
        ([(NETWORKS[0], float("nan"))], ALL[:1], DataError, "row 1: latency_ms is nan"),
        ([(LayerTable(()), 1.0)], ALL[:1], MeasurementError, "nothing to time"),
    ],
)
def test_what_cannot_be_fitted_is_refused(rows, free, error, message) -> None:
    with pytest.raises(error, match=message):
        calibrate(DEVICE, rows, free)


def resolve(name: str) -> LayerTable:
    if name == "gone.onnx":
        raise DataError("no file gone.onnx")
    return NETWORKS[int(name)]


def read(tmp_path, text: str | bytes):
    path = tmp_path / "rows.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_calibration(path, resolve)


def test_rows_are_read(tmp_path) -> None:
    text = "\ufefflatency_ms, model, note\r\n1.5, 0, warm\r\n\r\n2e1,1,\r\n"
    assert read(tmp_path, text) == [(NETWORKS[0], 1.5), (NETWORKS[1], 20.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column 'model'"),
        ("model,latency\n0,1\n", "line 1: no column 'latency_ms'"),
        ("model,latency_ms\n", "no rows"),
        ("model,latency_ms\n0,1\n1,fast\n", "line 3: latency_ms 'fast' is not a number"),
        ("model,latency_ms\n0\n", "line 2: latency_ms '' is not a number"),
        ("model,latency_ms\n0,-3\n", "line 2: latency_ms is -3"),
        ("model,latency_ms\n0,0\n", "line 2: latency_ms is 0"),
        ("model,latency_ms\n0,inf\n", "line 2: latency_ms is inf"),
        ("model,latency_ms\n ,3\n", "line 2: no model"),
        ("model,latency_ms\n0,1\ngone.onnx,3\n", "line 3: no file gone.onnx"),
        ('model,latency_ms\n"0,1\n', "unexpected end of data"),
        (b"model,latency_ms\n\xff\xfe,1\n", "cannot read"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, text, message) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, text)
    assert "rows.csv" in str(error.value)


def test_an_absent_file_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*absent\.csv"):
        read_calibration(tmp_path / "absent.csv", resolve)
