"""A verdict on a real device is not left to one measurement that something disturbed."""

import json

import pytest

from ehdnas.pipeline.meter import Instrument
from ehdnas.workspace import find_workspace

SEARCHED_MS = 2.0


@pytest.fixture
def local_run(found, ehdnas):
    """A run with an exported file whose search was for `local`, and measured its network there."""
    assert ehdnas("train", "--train-epochs", "1").code == 0
    assert ehdnas("export", "--target", "tflite").code == 0
    run = find_workspace().latest()
    record = run.read("search")
    where = {"device": "local", "metric": "latency_ms"}
    record["budgets"] = [{**record["budgets"][0], **where, "bound": 2.2, "text": "latency <= 2.2 ms"}]
    figure = {**record["chosen"]["figures"][0], **where, "basis": "measured", "value": SEARCHED_MS}
    record["chosen"]["figures"] = [figure]
    run.write("search", record)
    return run


@pytest.mark.parametrize(
    ("taken", "used", "verdict"),
    [
        ([2.01], 2.01, "PASS"),  # as the search had it
        ([3.4, 1.99, 2.02], 2.02, "PASS"),  # the first was disturbed
        ([3.4, 2.0, 3.3], 3.3, "FAIL"),  # it is the search's that no longer holds
        ([1.5, 2.3, 2.31], 2.3, "FAIL"),  # one that reads too quick is doubted as well
    ],
)
def test_a_figure_far_from_the_searchs_own_is_taken_thrice(
    local_run, ehdnas, monkeypatch, taken, used, verdict
):
    real, left = Instrument.measure_file, list(taken)
    once = []

    def scripted(instrument, path):
        once[:] = once or [real(instrument, path)]
        metrics = {**once[0].metrics, "latency_ms": left.pop(0)}
        return once[0].model_copy(update={"metrics": metrics})

    monkeypatch.setattr(Instrument, "measure_file", scripted)
    result = ehdnas("verify", "--device", "local", "--json")
    said = json.loads(result.out)
    assert not left, "measured as often as there is need to"
    assert said["verdict"] == verdict and result.code == (0 if verdict == "PASS" else 3)
    assert said["figures"][0]["value"] == used
    assert any("measured 3 times" in flag for flag in said["figures"][0]["flags"]) == (len(taken) == 3)
    assert local_run.read("verify")["figures"] == said["figures"]
