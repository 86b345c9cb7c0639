"""Several budgets in one text: which device each is for, and what cannot be told apart is refused."""

import pytest

from ehdnas.core.budget import Budget
from ehdnas.core.budgets import assign_budgets, parse_budgets
from ehdnas.core.errors import UsageError

TWENTY, EIGHT = Budget("latency_ms", 20.0), Budget("latency_ms", 8.0)


@pytest.mark.parametrize(
    ("text", "devices", "expected"),
    [
        ("latency <= 20 ms", ["pi4"], [("pi4", TWENTY)]),
        ("latency <= 20 ms", ["pi4", "coral"], [("pi4", TWENTY), ("coral", TWENTY)]),
        ("latency <= 20 ms, latency <= 8 ms", ["pi4", "coral"], [("pi4", TWENTY), ("coral", EIGHT)]),
        (
            "latency <= 20 ms, energy <= 5 mJ", ["pi4"],
            [("pi4", TWENTY), ("pi4", Budget("energy_mj", 5.0))],
        ),
        (
            "8 ms on coral,throughput >= 100 fps on pi4 , 20 ms on pi4", ["pi4", "coral"],
            [("coral", EIGHT), ("pi4", Budget("throughput_fps", 100.0)), ("pi4", TWENTY)],
        ),
        ("0.7x on a, 0.9x on b", ["a", "b"],
         [("a", Budget("latency_ms", 0.7, True)), ("b", Budget("latency_ms", 0.9, True))]),
    ],
)  # fmt: skip
def test_each_budget_goes_to_its_device(text, devices, expected):
    assert assign_budgets(text, devices) == expected


@pytest.mark.parametrize(
    ("text", "devices", "says"),
    [
        ("20 ms on pi5, 8 ms on coral", ["pi4", "coral"], "'pi5' is not searched for; did you mean 'pi4'?"),
        ("20 ms on pi4", ["pi4", "coral"], "none is for device 'coral'"),
        ("20 ms, 8 ms, 9 ms", ["pi4", "coral"], "3 budgets for 2 devices"),
        ("20 ms, 8 ms", ["pi4"], "two bounds on the latency of 'pi4'"),
        ("20 ms on pi4, 0.7x on pi4", ["pi4"], "two bounds on the latency of 'pi4'"),
        ("20 ms, 8 ms on coral", ["pi4", "coral"], "each part with 'on DEVICE', or none"),
        ("20 ms, ", ["pi4"], "'' is not a budget"),
        ("20 ms on ", ["pi4"], "is not a budget"),
        ("20 parsec on pi4", ["pi4"], "unknown unit 'parsec'"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_refused_in_one_line(text, devices, says):
    with pytest.raises(UsageError) as error:
        assign_budgets(text, devices)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_budget_without_a_device_names_none():
    assert parse_budgets("20 ms") == [(TWENTY, None)]
