"""From answers to a measurement: statistics, the repeated round and the flags."""

import json

import pytest

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceError, MeasurementError, UsageError
from ehdnas.profilers.agent import MARKER
from ehdnas.profilers.board.checks import machine_checks
from ehdnas.profilers.board.collect import collect
from ehdnas.profilers.board.reply import Output, Reply, read_reply
from ehdnas.profilers.protocol import Protocol

DEVICE = Device(name="board", kind="local", title="A board")
THREE = Protocol("three", 1, 0, 1, 0, 1, processes=3)


def reply(samples: list[float], **state) -> Reply:
    return Reply(
        interpreter="test 1",
        threads=1,
        load_ms=1,
        first_ms=2,
        samples_ms=samples,
        peak_memory_mb=10,
        before={"load": 0.5, **state},
        after=state,
        machine={"cores": 2},
    )


def of_medians(*medians: float) -> list[Reply]:
    return [reply([median]) for median in medians]


def answers(*rounds: list[Reply]):
    queue = [one for each in rounds for one in each]
    return (lambda: queue.pop(0)), queue


def test_calm_processes_are_measured_once_and_not_flagged():
    run, queue = answers([reply([10.0, 10.1]), reply([10.0, 10.2]), reply([10.3, 10.1])])
    measured = collect(DEVICE, "f00", THREE, run)
    assert not queue and measured.flags == [] and measured.passport["rounds"] == 1
    assert measured.metric("latency_ms") == pytest.approx(10.1)


def test_a_restless_round_is_repeated_and_the_calmer_one_counts():
    run, queue = answers(
        [reply([10.0]), reply([12.0]), reply([14.0])], [reply([10.0]), reply([10.1]), reply([10.2])]
    )
    measured = collect(DEVICE, "f00", THREE, run)
    assert not queue and measured.passport["rounds"] == 2
    assert measured.flags == [] and measured.metric("latency_ms") == 10.1


def test_two_restless_rounds_are_flagged_with_the_smaller_spread():
    run, queue = answers(
        [reply([10.0]), reply([12.0]), reply([14.0])], [reply([10.0]), reply([10.0]), reply([10.8])]
    )
    measured = collect(DEVICE, "f00", THREE, run)
    assert not queue and measured.flags == ["spread 8 %"]


def test_everything_doubtful_is_flagged():
    state = {"load": 3.1, "governor": "powersave", "throttled": "0x50005"}
    run, _ = answers([reply([10.0, 10.0, 12.0], **state)] * 3)
    assert collect(DEVICE, "f00", THREE, run).flags == [
        "drift +20 % from the first runs to the last",
        "busy machine (load 3.1 on 2 cores)",
        "governor powersave",
        "throttled (see the passport)",
    ]


def test_throttling_of_the_past_is_not_flagged():
    run, _ = answers([reply([10.0], governor="performance", throttled="0x50000")] * 3)
    assert collect(DEVICE, "f00", THREE, run).flags == []


def output(answer: object, status: int = 0) -> Output:
    return Output(f"Welcome!\n{MARKER}x\n{MARKER} {json.dumps(answer)}\nbye\n", "", status)


def test_the_marked_line_is_found_among_others():
    good = {"ok": True, **reply([1.0]).model_dump()}
    assert read_reply(output(good), "net.onnx").samples_ms == [1.0]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("interpreter", DeviceError),
        ("model", MeasurementError),
        ("input", UsageError),
        ("?", MeasurementError),
    ],
)
def test_a_refusal_becomes_the_error_of_its_kind(kind, error):
    with pytest.raises(error, match=r"^net\.onnx: because$"):
        read_reply(output({"ok": False, "kind": kind, "reason": "because"}, 3), "net.onnx")


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (output([1]), "not an object"),
        (output({"ok": True}), "damaged at 'interpreter'"),
        (output({"ok": True, **reply([1.0]).model_dump(), "samples_ms": [-1]}), "damaged at 'samples_ms"),
        (output({"ok": True, **reply([1.0]).model_dump(), "samples_ms": []}), "damaged at 'samples_ms"),
        (Output(f'{MARKER} {{"ok": tr', "", 0), "cut short"),
        (Output(MARKER + " " + "[" * 100_000, "", 0), "cut short"),
        (Output("", "Traceback\nbash: python3: not found\n", 127), "exit code 127 .* not found"),
        (Output("", "", -9), "SIGKILL, most likely for lack of memory"),
        (Output("", "", -11), "SIGSEGV"),
    ],
)
def test_a_damaged_answer_is_one_line(damaged, what):
    with pytest.raises(MeasurementError, match=what) as caught:
        read_reply(damaged, "net.onnx")
    assert "\n" not in str(caught.value)


def test_checks_fail_with_a_mend_and_pass_on_what_is_not_reported():
    assert all(check.passed for check in machine_checks({}))
    poor = {
        "machine": {"free_disk_mb": 10, "cores": 4},
        "before": {"free_memory_mb": 50, "governor": "ondemand", "load": 7.2, "throttled": "0x1"},
    }
    failed = machine_checks(poor)
    assert [check.name for check in failed if not check.passed] == [
        "memory",
        "disk",
        "governor",
        "clock",
        "load",
    ]
    assert all(check.mend for check in failed)
