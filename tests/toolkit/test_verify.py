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


TAKEN = [  # what is measured, which of it counts, and the verdict
    ([2.01], 2.01, "PASS"),  # as the search had it
    ([3.4, 1.99, 2.02, 2.0], 2.0, "PASS"),  # the first was disturbed
    ([3.4, 3.55, 2.0, 1.99, 2.01], 2.0, "PASS"),  # so was the second
    ([3.4, 2.0, 3.38, 3.42], 3.4, "FAIL"),  # it is the search's that no longer holds
    ([1.5, 2.3, 2.31, 2.29], 2.3, "FAIL"),  # one that reads too quick is doubted as well
    ([3.0, 2.0, 2.1, 2.5, 3.5, 4.0, 2.7, 2.9, 3.2], 2.9, "FAIL"),  # a device that is never steady
]


def test_a_figure_far_from_the_searchs_own_is_taken_until_three_agree(local_run, ehdnas, monkeypatch):
    real, once, left = Instrument.measure_file, [], []

    def scripted(instrument, path):
        once[:] = once or [real(instrument, path)]
        metrics = {**once[0].metrics, "latency_ms": left.pop(0)}
        return once[0].model_copy(update={"metrics": metrics})

    monkeypatch.setattr(Instrument, "measure_file", scripted)
    for taken, used, verdict in TAKEN:
        left[:] = taken
        result = ehdnas("verify", "--device", "local", "--json")
        said = json.loads(result.out)
        assert not left, "measured as often as there is need to"
        assert said["verdict"] == verdict and result.code == (0 if verdict == "PASS" else 3)
        (figure,) = said["figures"]
        assert figure["value"] == used
        assert any(f"measured {len(taken)} times" in flag for flag in figure["flags"]) == (len(taken) > 1)
        assert local_run.read("verify")["figures"] == said["figures"]
