"""From answers to a measurement: statistics, the repeated round and the flags."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceError, EhdnasError, MeasurementError, UsageError
from ehdnas.profilers.agent import MARKER
from ehdnas.profilers.board.collect import collect
from ehdnas.profilers.board.reply import Output, Reply, Window, read_reply
from ehdnas.profilers.protocol import QUICK, STANDARD, Protocol, sustained

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
    run, queue = answers([reply([10.0, 10.0, 12.0], **state)] * 6)
    assert collect(DEVICE, "f00", THREE, run).flags == [
        "drift +20 % from the first runs to the last",
        "busy machine (load 3.1 on 2 cores)",
        "throttled (see the passport)",
        "governor powersave",
    ]
    assert not queue


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
        ("delegate", DeviceError),
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


def test_a_round_beside_a_busy_program_is_repeated_and_flagged_if_it_stays_so():
    calm, busy = reply([10.0]), reply([10.0]).model_copy(update={"other_cpu": 0.34})
    run, queue = answers([busy] * 3, [calm] * 3)
    assert collect(DEVICE, "f00", THREE, run).flags == [] and not queue
    run, queue = answers([busy] * 6)
    assert collect(DEVICE, "f00", THREE, run).flags == ["busy machine (other programs used 34 % of the CPU)"]


def test_a_known_share_of_the_cpu_counts_for_more_than_the_load_average():
    told = reply([10.0], load=9.0).model_copy(update={"other_cpu": 0.02})
    run, queue = answers([told] * 3)
    assert collect(DEVICE, "f00", THREE, run).flags == [] and not queue


def test_a_clock_that_was_limited_before_the_runs_is_a_doubt():
    limited = reply([10.0]).model_copy(update={"before": {"throttled": "0x2"}})
    run, _ = answers([limited] * 3, [reply([10.0])] * 3)
    measured = collect(DEVICE, "f00", THREE, run)
    assert measured.flags == [] and measured.passport["rounds"] == 2


def test_throttling_that_came_and_went_between_two_looks_is_a_doubt():
    passed_by = reply([10.0]).model_copy(
        update={"before": {"throttled": "0x50000"}, "after": {"throttled": "0xc0000"}}
    )
    run, _ = answers([passed_by] * 6)
    assert collect(DEVICE, "f00", THREE, run).flags == ["throttled (see the passport)"]


def test_a_single_process_is_marked_and_not_repeated():
    run, queue = answers([reply([10.0, 10.0, 12.0])])
    measured = collect(DEVICE, "f00", replace(THREE, processes=1), run)
    assert not queue and measured.passport["rounds"] == 1 and len(measured.flags) == 1


def test_energy_counts_only_where_every_process_told_it():
    told = reply([10.0]).model_copy(update={"energy_mj": 40.0, "power_w": 4.0})
    run, _ = answers([told] * 3)
    measured = collect(DEVICE, "f00", THREE, run)
    assert measured.metric("energy_mj") == 40.0 and measured.passport["power_w"] == 4.0
    run, _ = answers([told, told, reply([10.0])])
    assert "energy_mj" not in collect(DEVICE, "f00", THREE, run).metrics


def test_what_a_tool_does_not_tell_is_left_out():
    bare = Reply(interpreter="t", threads=1, samples_ms=[2.0], before={}, after={}, machine={}, gpu_ms=[1.5])
    run, _ = answers([bare] * 3)
    assert collect(DEVICE, "f00", THREE, run).metrics == {
        "latency_ms": 2.0,
        "throughput_fps": 500.0,
        "gpu_latency_ms": 1.5,
    }


def test_memory_and_overheads_are_kept_apart():
    told = reply([10.0], affinity=[2, 3]).model_copy(
        update={"base_memory_mb": 4.0, "start_ms": 90.0, "import_ms": 200.0}
    )
    run, _ = answers([told] * 3)
    measured = collect(DEVICE, "f00", THREE, run)
    assert measured.metric("memory_mb") == 6.0 and measured.metric("peak_memory_mb") == 10.0
    assert measured.passport["import_ms"] == [200.0] * 3 and measured.passport["cpus"] == [2, 3]
    assert measured.passport["overheads"] == {
        "start_ms": 90.0,
        "import_ms": 200.0,
        "load_ms": 1.0,
        "first_ms": 2.0,
    }


def test_a_sustained_timing_is_not_repeated_and_may_drift():
    windows = [Window(t_s=10 * n, median_ms=10 + n, runs=9, temperature_c=50.0 + n) for n in range(1, 9)]
    hot = reply([10.0, 11.0, 18.0]).model_copy(update={"windows": windows})
    run, queue = answers([hot])
    measured = collect(DEVICE, "f00", sustained(1.5), run)
    assert not queue and measured.flags == []
    assert measured.metric("sustained_ms") == 17.5 and len(measured.passport["windows"]) == 8


def test_only_the_standard_protocol_gives_a_verdict_and_old_keys_stay():
    assert STANDARD.usable_for_verdict
    assert not QUICK.usable_for_verdict and not sustained(5).usable_for_verdict
    assert (STANDARD.settings_hash, QUICK.settings_hash) == ("9da5712929a20d4f", "682291aa0a1f4e87")
    assert replace(STANDARD, window_s=10.0).settings_hash != STANDARD.settings_hash


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_sustained_timing_of_no_length_is_refused(minutes):
    with pytest.raises(UsageError, match="sustained timing of"):
        sustained(minutes)


# What the agent gave before it told of windows, power and what else ran.
OLD = {
    "interpreter": "tflite-runtime 2.14.0",
    "threads": 1,
    "inputs": [{"name": "x", "shape": [1, 8], "dtype": "float32"}],
    "load_ms": 1.5,
    "first_ms": 0.5,
    "samples_ms": [0.25, 0.26, 0.25],
    "before": {"governor": "ondemand", "load": 0.1, "temperature_c": {"0:cpu": 51.0}},
    "after": {"load": 0.1},
    "peak_memory_mb": 41.0,
    "ok": True,
    "machine": {"machine": "aarch64", "cores": 4},
}
NEW = {
    **OLD,
    "runs": 3,
    "timing_ms": 0.8,
    "power_w": 4.5,
    "energy_mj": 1.2,
    "other_cpu": 0.01,
    "windows": [{"t_s": 10.0, "median_ms": 0.25, "runs": 3, "temperature_c": 51.0}],
}


def test_an_old_agent_is_still_read():
    assert read_reply(output(OLD), "net.tflite").windows == []
    assert read_reply(output(NEW), "net.tflite").windows[0].temperature_c == 51.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("samples_ms", [float("nan")]),
        ("samples_ms", [1e300]),
        ("samples_ms", [1.0] * 200_001),
        ("windows", [NEW["windows"][0]] * 10_001),
        ("energy_mj", -1.0),
        ("energy_mj", 0),
        ("other_cpu", 7),
        ("load_ms", float("inf")),
        ("peak_memory_mb", -4),
        ("before", {"name": "\ud800"}),
        ("machine", {"cores": 10**400}),
        ("before", {"load": float("nan")}),
        ("interpreter", "x" * 10_000),
    ],
)
def test_absurd_values_are_damage(key, value):
    with pytest.raises(MeasurementError, match=r"damaged at|cut short"):
        read_reply(output({**NEW, key: value}), "net.tflite")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(st.sampled_from([*sorted(NEW), "kind", "reason", "gpu_ms"]), JSON, max_size=3), st.data()
)
def test_whatever_comes_back_is_read_or_refused_in_one_line(changes, data):
    whole = output({**NEW, **changes}).stdout
    start = data.draw(st.integers(0, len(whole)))
    cut = data.draw(st.sampled_from(["", "}", "e9", '"', "\x00", "[[", MARKER]))
    for text in (whole, whole[:start] + cut + whole[start + len(cut) :], whole[:start]):
        try:
            read = read_reply(Output(text, cut, data.draw(st.integers(-70, 255))), "net.tflite")
        except EhdnasError as error:
            assert str(error).isprintable()
        else:
            json.dumps(collect(DEVICE, "f00", THREE, lambda read=read: read).model_dump(), allow_nan=False)
