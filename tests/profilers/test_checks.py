"""What `doctor` makes of a machine's report: each fault found, each mend runnable, nothing trusted."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehdnas.core.device import Device
from ehdnas.profilers.board.checks import board_checks, run_there
from ehdnas.profilers.board.options import BoardOptions
from ehdnas.profilers.devices import builtin_devices

PI = Device(name="pi4", kind="ssh", title="Pi", host="pi@raspberrypi", runtime="litert")
CORAL = Device(name="coral", kind="ssh", title="Coral", host="me@box:2222", runtime="edgetpu")
JETSON = Device(name="jetson", kind="ssh", title="Jetson", host="nano", runtime="tensorrt")
EDGE = BoardOptions(delegate="libedgetpu.so.1")
PI_64 = BoardOptions(system_bits=64)


def found(answer, device=PI, options=PI_64):
    return {check.name: check for check in board_checks(answer, device, options)}


def test_a_healthy_board_passes_and_has_no_checks_of_other_kinds():
    answer = {
        "interpreter": "tflite-runtime 2.14.0",
        "machine": {"python": "3.11.2", "numpy": "1.26.4", "bits": 64, "cores": 4, "free_disk_mb": 9000,
                    "model": "Raspberry Pi 4 Model B"},
        "before": {"governor": "performance", "freq_mhz": 1500, "max_freq_mhz": 1500, "throttled": "0x0",
                   "temperature_c": {"0:cpu": 48.3}, "load": 0.2, "free_memory_mb": 3000},
    }  # fmt: skip
    checks = found(answer)
    assert all(check.passed for check in checks.values())
    assert list(checks) == [
        "python", "system", "interpreter", "numpy", "memory", "disk", "power", "clock", "temperature",
        "governor", "frequency", "load",
    ]  # fmt: skip
    assert checks["temperature"].detail == "48 °C at most, in 0:cpu"


@pytest.mark.parametrize(
    ("answer", "device", "options", "name", "advice", "says", "mend"),
    [
        ({"machine": {"python": "3.6.9"}}, PI, PI_64, "python", False, "3.7 or later", "apt install python3"),
        ({"machine": {"bits": 32, "model": "Raspberry Pi 3"}}, PI, PI_64, "system", False, "32-bit system",
         "install the 64-bit Raspberry Pi OS"),
        ({"interpreters": [{"name": "ai-edge-litert", "version": "", "reason": "No module named 'x'"}]}, PI,
         PI_64, "interpreter", False, "No module named", "ehdnas devices install pi4"),
        ({"interpreter": "tflite-runtime 2.14.0", "machine": {"numpy": "2.1.0"}}, PI, PI_64, "numpy", False,
         "before 2", "ehdnas devices install pi4"),
        ({"delegate": "cannot open shared object file"}, CORAL, EDGE, "delegate", False, "cannot open",
         "ssh -t -p 2222 me@box 'sudo apt update && sudo apt install libedgetpu1-std'"),
        ({"delegate": "no"}, CORAL, EDGE.model_copy(update={"clock": "maximum"}), "delegate", False, "no",
         "libedgetpu1-max"),
        ({"edgetpu_runtime": "BuildLabel(x), RuntimeVersion(13)"}, CORAL, EDGE, "edge tpu runtime", True,
         "version 13; files of edgetpu_compiler 16 need 14", "libedgetpu1-std"),
        ({"machine": {"edgetpu_usb_mbps": 12}}, CORAL, EDGE, "edge tpu", False, "12 Mbit/s", "USB 3"),
        ({"machine": {"system": "Linux 6.1"}}, CORAL, EDGE, "edge tpu", True, "none seen", "plug it in"),
        ({"machine": {"model": "Intel(R) Xeon(R)"}}, PI, BoardOptions(model="Raspberry Pi 4"), "model", True,
         "described as a Raspberry Pi 4", "options.model="),
        ({"tool": ""}, JETSON, BoardOptions(tool="/x/trtexec"), "tool", False, "no /x/trtexec",
         "apt install libnvinfer-bin"),
        ({"before": {"free_memory_mb": 9}}, PI, PI_64, "memory", False, "9 MB free", "ssh -t pi@raspberrypi"),
        ({"machine": {"free_disk_mb": 9}}, PI, PI_64, "disk", False, "9 MB free", "du -xh"),
        ({"before": {"throttled": "0x50005"}}, PI, PI_64, "power", False, "under-voltage now", "supply"),
        ({"before": {"throttled": "0x50005"}}, PI, PI_64, "clock", False, "slowed down now", "cool"),
        ({"before": {"throttled": "0x50000"}}, PI, PI_64, "power", True, "since it started", "sudo reboot"),
        ({"before": {"throttled": "0xe0000"}}, PI, PI_64, "clock", True, "since it started", "sudo reboot"),
        ({"before": {"temperature_c": {"a": 40, "b": 81.0}}}, PI, PI_64, "temperature", True, "81 °", "cool"),
        ({"before": {"governor": "ondemand"}}, PI, PI_64, "governor", True, "ondemand", "sudo tee"),
        ({"before": {"governor": "performance", "freq_mhz": 600, "max_freq_mhz": 1500}}, PI, PI_64,
         "frequency", True, "600 of 1500 MHz", "cool"),
        ({"before": {"load": 9.0}, "machine": {"cores": 4}}, PI, PI_64, "load", True, "9.0 on 4", "%cpu"),
        ({"before": {"power_mode": "5W"}}, JETSON, BoardOptions(), "power mode", True, "5W",
         "ssh -t nano 'sudo nvpmodel -m 0'"),
        ({"before": {"jetson_clocks": False}}, JETSON, BoardOptions(), "jetson clocks", True, "vary",
         "ssh -t nano 'sudo jetson_clocks'"),
    ],
)  # fmt: skip
def test_each_fault_is_found_and_has_its_mend(answer, device, options, name, advice, says, mend):
    check = found(answer, device, options)[name]
    assert (check.passed, check.advice) == (False, advice)
    assert says in check.detail and mend in check.mend


def test_what_is_only_slower_or_not_reported_passes_and_says_so():
    assert "slower" in found({"machine": {"edgetpu_usb_mbps": 480}}, CORAL, EDGE)["edge tpu"].detail
    assert "slower" not in found({"machine": {"edgetpu_usb_mbps": 5000}}, CORAL, EDGE)["edge tpu"].detail
    assert "PCIe" in found({"machine": {"edgetpu_pcie": True}}, CORAL, EDGE)["edge tpu"].detail
    state = {"governor": "ondemand", "freq_mhz": 600, "max_freq_mhz": 1500}
    assert found({"before": state})["frequency"].passed, "an idle processor is slow by design"
    for device, options in ((PI, PI_64), (CORAL, EDGE), (JETSON, BoardOptions())):
        for check in found({}, device, options).values():
            assert check.passed and "not reported" in check.detail


def test_an_interpreter_that_works_is_found_after_one_that_does_not():
    tried = [{"name": "ai-edge-litert", "reason": "none"}, {"name": "tflite-runtime", "version": "2.14.0"}]
    assert found({"interpreters": tried})["interpreter"].detail == "tflite-runtime 2.14.0"


def test_a_mend_is_safe_to_paste_whatever_the_host():
    for host in ("x; rm -rf ~", "-oProxyCommand=rm", "x' && rm '"):
        for kind in ("ssh", "adb"):
            line = run_there(Device(name="a", kind=kind, title="A", host=host), "uptime")
            assert shlex.split(line)[-1] == "uptime" and "rm" not in shlex.split(line)
    assert run_there(PI, "a b") == "ssh -t pi@raspberrypi 'a b'"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
_KEYS = [
    "machine", "python", "numpy", "cores", "free_disk_mb", "bits", "model", "jetpack",
    "edgetpu_usb_mbps", "edgetpu_pcie", "governor", "freq_mhz", "max_freq_mhz", "temperature_c",
    "throttled", "load", "free_memory_mb", "power_mode", "jetson_clocks",
]  # fmt: skip
_TABLE = _VALUES | st.dictionaries(st.sampled_from(_KEYS), _VALUES)
_ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "machine": _TABLE,
        "before": _TABLE,
        "interpreters": _VALUES | st.lists(st.dictionaries(st.sampled_from(["name", "reason"]), _VALUES)),
        "interpreter": _VALUES,
        "delegate": _VALUES,
        "edgetpu_runtime": _VALUES,
        "tool": _VALUES,
    },
)


@settings(max_examples=300, deadline=None)
@given(_ANSWERS, st.sampled_from([(PI, PI_64), (CORAL, EDGE), (JETSON, BoardOptions(tool="trtexec"))]))
def test_no_report_whatever_makes_it_raise(answer, case):
    for check in board_checks(answer, *case):
        assert check.detail.isprintable() and len(check.detail) < 1000


def test_every_built_in_board_has_options_that_are_checked():
    from ehdnas.core.device import read_device
    from ehdnas.profilers.board.options import board_options

    for path in builtin_devices().values():
        device = read_device(path)
        if not device.simulated:
            assert board_checks({}, device, board_options(device))
