"""Accuracy against what a network takes, with published networks beside: what is drawn, and what is said."""

import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from whole_run import search_record

from ehdnas.report.data import SearchData
from ehdnas.report.figures import tradeoff_figures
from ehdnas.report.tradeoff import front_of

LANDMARK = {
    "name": "OTHERS <b>&",
    "genotype": "0",
    "supernet_accuracy": 0.8,
    "figures": [{"device": "pi4", "metric": "latency_ms", "value": 5.5, "basis": "predicted"}],
}


def read(**changes):
    return TypeAdapter(SearchData).validate_python({**search_record(), **changes})


def test_candidates_and_published_networks_are_drawn_and_told():
    (one,) = tradeoff_figures(read(landmarks=[LANDMARK]))
    assert one.title == "Accuracy against latency on pi4"
    assert "What published networks take is predicted." in one.caption
    assert "OTHERS &lt;b&gt;&amp; 5.5 ms and 80.0 %" in one.svg and "<b>" not in one.svg
    assert "the budget is at 4 ms" in one.svg and "The chosen one is at 3.25 ms and 82.0 %" in one.svg


def test_there_is_none_where_a_single_network_is_known():
    record = search_record()
    assert tradeoff_figures(read(candidates=record["candidates"][:1])) == []
    assert len(tradeoff_figures(read(landmarks=[]))) == 1  # two candidates are enough


points = st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 100)), max_size=20)


@given(points, st.booleans())
def test_the_front_is_what_nothing_beats(some, rising):
    front = front_of(some, rising)
    sign = -1 if rising else 1

    def beats(a, b):
        return sign * a[0] <= sign * b[0] and a[1] >= b[1] and a != b

    assert set(front) <= set(some)
    assert {one for one in some if not any(beats(other, one) for other in some)} == set(front)


def test_a_search_keeps_published_networks_beside_what_it_found(found):
    (path,) = (found / ".ehdnas" / "runs" / "latest").glob("search.json")
    landmarks = {one["name"]: one for one in json.loads(path.read_text())["landmarks"]}
    assert {"DARTS_V1", "DARTS_V2", "EHDNAS_GENERIC"} <= set(landmarks)
    for one in landmarks.values():
        (figure,) = one["figures"]
        assert figure["basis"] == "simulated" and figure["value"] > 0 and 0 <= one["supernet_accuracy"] <= 1
