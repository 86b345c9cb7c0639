import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehdnas.core.budget import Budget, parse_budget
from ehdnas.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("latency <= 20 ms", Budget("latency_ms", 20)),
        ("20ms", Budget("latency_ms", 20)),
        ("latency<=0.02s", Budget("latency_ms", 20)),
        ("250 µs", Budget("latency_ms", 0.25)),
        ("throughput >= 500 fps", Budget("throughput_fps", 500)),
        ("energy <= 3 mJ", Budget("energy_mj", 3)),
        ("0.7x", Budget("latency_ms", 0.7, relative=True)),
    ],
)
def test_budgets_are_read(text, budget):
    read = parse_budget(text)
    assert read.metric == budget.metric
    assert read.bound == pytest.approx(budget.bound)
    assert read.relative == budget.relative


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latency <= 20 parsecs", "unknown unit 'parsecs'"),
        ("latency <= 20", "is not a budget"),
        ("latency >= 20 ms", "is written with <="),
        ("throughput <= 20 fps", "is written with >="),
        ("throughput >= 20 ms", "ms measures latency"),
        ("0 ms", "must be a positive number"),
        ("1e999 ms", "must be a positive number"),
        ("fast", "is not a budget"),
        ("", "is not a budget"),
        ("-3 ms", "is not a budget"),
    ],
)
def test_wrong_budgets_say_how_to_write_one(text, says):
    with pytest.raises(UsageError) as error:
        parse_budget(text)
    assert says in str(error.value)


def test_meeting_a_budget():
    assert parse_budget("20 ms").meets(20.0)
    assert not parse_budget("20 ms").meets(20.1)
    assert parse_budget("500 fps").meets(500.0)
    assert not parse_budget("500 fps").meets(499.0)
    assert parse_budget("0.5x").resolve(10.0) == Budget("latency_ms", 5.0)


@given(st.floats(1e-6, 1e6), st.sampled_from(["latency_ms", "throughput_fps"]))
def test_the_budget_named_as_the_nearest_is_met_when_typed_in(value, metric):
    budget = Budget.just_met_by(metric, value)
    assert budget.meets(value)
    assert parse_budget(str(budget)).meets(value)
    assert budget.bound == pytest.approx(value, rel=2e-3)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        assert parse_budget(text).bound > 0
    except UsageError as error:
        assert "\n" not in str(error)
