"""What `ehdnas doctor` makes of a machine's report, which is the word of another machine: none is trusted."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from typing import Any

from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.core.remote.ssh_config import parse_address
from ehdnas.profilers.base import Check
from ehdnas.profilers.board.options import BoardOptions

_MEMORY_MB = 256
_DISK_MB = 300  # the runtime takes 180 to 230, and a model some more
_OLDEST_PYTHON = (3, 7)
_USB_2_MBPS = 480
_USB_3_MBPS = 5000
# "Package requires runtime version (14)": what libedgetpu 13 says of a file of edgetpu_compiler 16.
_COMPILER_16_NEEDS = 14
# Bits of `vcgencmd get_throttled`: what is so now; 16 places up, what was so since the machine started.
_UNDER_VOLTAGE = 0b0001
_SLOWED = 0b1110
_SINCE_START = 16
_ABSENT = "not reported"


def board_checks(answer: dict[str, Any], device: Device, options: BoardOptions) -> list[Check]:
    """Return the checks on a probed machine, in the order in which they are best mended.

    What the machine does not report passes, and its detail says so; what its kind does not have is left out.
    """
    machine, state = _table(answer, "machine"), _table(answer, "before")
    found = [
        *_python(machine, device, options),
        *_system(machine, device, options),
        *_interpreter(answer, device, options),
        *_numpy(answer, machine, device),
        *_tool(answer, device, options),
        *_accelerator(answer, machine, device, options),
    ]
    return [
        *found,
        *_state_checks(machine, state, device, options.hottest_c),
        *_jetson(machine, state, device),
    ]


def run_there(device: Device, command: str) -> str:
    """Return the command line that has a device run `command`, to be pasted into a shell here."""
    if device.kind == "adb":
        return shlex.join([*_adb(device), "shell", command])
    if device.kind != "ssh" or not device.host:
        return command
    try:
        user, host, port = parse_address(device.host)
    except UsageError:
        return command
    ports = ["-p", str(port)] if port else []
    # -t: sudo asks for its password on a terminal.
    return shlex.join(["ssh", "-t", *ports, f"{user}@{host}" if user else host, command])


def _state_checks(
    machine: dict[str, Any], state: dict[str, Any], device: Device, hottest_c: float
) -> Iterator[Check]:
    largest = run_there(device, "du -xh ~ | sort -h | tail")
    hungriest = run_there(device, "ps aux --sort=-%mem | head")
    busiest = run_there(device, "ps aux --sort=-%cpu | head")
    yield _at_least("memory", state.get("free_memory_mb"), _MEMORY_MB, hungriest)
    yield _at_least("disk", machine.get("free_disk_mb"), _DISK_MB, largest)
    yield from _power(machine, state, device)
    yield _temperature(state.get("temperature_c"), hottest_c)
    yield _governor(state.get("governor"), device)
    yield _frequency(state)
    yield _load(state.get("load"), machine.get("cores"), busiest)


def _python(machine: dict[str, Any], device: Device, options: BoardOptions) -> Iterator[Check]:
    found = _text(machine.get("python"))
    if not found:
        if not options.tool:
            yield Check("python", True, _ABSENT)
        return
    new = _version(found) >= _OLDEST_PYTHON or not _version(found)
    oldest = ".".join(map(str, _OLDEST_PYTHON))
    mend = run_there(device, "sudo apt install python3 python3-venv")
    yield Check("python", new, f"{found}, {oldest} or later needed", mend)


def _system(machine: dict[str, Any], device: Device, options: BoardOptions) -> Iterator[Check]:
    model = _text(machine.get("model"))
    if options.model and model:
        mend = f"if it is the right machine, ehdnas devices set {device.name} title=NAME options.model="
        detail = f"{model}; '{device.name}' is described as a {options.model}"
        yield Check("model", options.model.lower() in model.lower(), detail, mend, advice=True)
    bits, wanted = machine.get("bits"), options.system_bits
    if not wanted:
        return
    if not isinstance(bits, int):
        yield Check("system", True, _ABSENT)
        return
    why = "" if bits == wanted else f"; there are no runtime wheels but for {wanted} bits"
    system = "the 64-bit Raspberry Pi OS" if "raspberry" in _model(machine) else f"a {wanted}-bit system"
    yield Check("system", bits == wanted, f"{bits}-bit system{why}", f"install {system}")


def _interpreter(answer: dict[str, Any], device: Device, options: BoardOptions) -> Iterator[Check]:
    tried = _tried(answer)
    found = _used(answer)
    if found:
        yield Check("interpreter", True, found)
    elif tried:
        reasons = "; ".join(f"{_text(one.get('name'))}: {_text(one.get('reason'))}" for one in tried)
        yield Check("interpreter", False, f"none ({reasons[:500]})", _install(device))
    elif not options.tool:
        yield Check("interpreter", True, _ABSENT)


def _numpy(answer: dict[str, Any], machine: dict[str, Any], device: Device) -> Iterator[Check]:
    installed = _text(machine.get("numpy"))
    used = _used(answer) or " ".join(_text(one.get("name")) for one in _tried(answer) if one.get("version"))
    if "tflite-runtime" in used and _version(installed):
        detail = f"{installed}; tflite-runtime needs one before 2"
        yield Check("numpy", _version(installed) < (2,), detail, _install(device, "numpy<2"))


def _tool(answer: dict[str, Any], device: Device, options: BoardOptions) -> Iterator[Check]:
    if "tool" not in answer:
        if not options.tool:
            return
        yield Check("tool", True, f"{options.tool}, {_ABSENT}")
        return
    found = _text(answer["tool"])
    mend = f"ehdnas devices set {device.name} options.tool=PATH"
    if device.runtime == "tensorrt":
        mend = run_there(device, "sudo apt install libnvinfer-bin")
    elif device.kind == "adb":
        mend = shlex.join([*_adb(device), "push", "benchmark_model", options.tool])
    yield Check("tool", bool(found), found or f"no {options.tool or device.runtime}", mend)


def _accelerator(
    answer: dict[str, Any], machine: dict[str, Any], device: Device, options: BoardOptions
) -> Iterator[Check]:
    if options.delegate:
        yield _delegate(answer.get("delegate"), device, options)
    if device.runtime != "edgetpu":
        return
    yield from _edgetpu_runtime(answer.get("edgetpu_runtime"), device, options)
    mbps = _number(machine.get("edgetpu_usb_mbps"))
    if mbps is None:
        if machine.get("edgetpu_pcie") is True:
            yield Check("edge tpu", True, "on PCIe")
            return
        if "system" not in machine:  # then nothing else can be told from what it says
            yield Check("edge tpu", True, f"its connection is {_ABSENT}")
            return
        mend = "plug it in; `lsusb` shows it as 1a6e:089a or 18d1:9302"
        yield Check("edge tpu", False, "none seen on USB or PCIe", mend, advice=True)
        return
    slow = "; slower than on USB 3" if mbps < _USB_3_MBPS else ""
    mend = "plug it into a USB 3 port, with the cable that came with it"
    yield Check("edge tpu", mbps >= _USB_2_MBPS, f"on USB at {mbps:.0f} Mbit/s{slow}", mend)


def _delegate(reported: Any, device: Device, options: BoardOptions) -> Check:
    if not isinstance(reported, str):
        return Check("delegate", True, f"{options.delegate}, {_ABSENT}")
    mend = f"ehdnas devices set {device.name} options.delegate=LIBRARY"
    if "edgetpu" in options.delegate:
        mend = _apt(device, options)
    reason = _text(reported).removeprefix(f"{options.delegate}: ")
    return Check("delegate", not reason, f"{options.delegate}: {reason or 'loads'}", mend)


def _edgetpu_runtime(reported: Any, device: Device, options: BoardOptions) -> Iterator[Check]:
    """Its version against the compiler's: a file of a newer one is refused at its first run."""
    found = re.search(r"RuntimeVersion\((\d{1,4})\)", _text(reported))
    if found is None:
        return
    version = int(found[1])
    detail = f"version {version}; files of edgetpu_compiler 16 need {_COMPILER_16_NEEDS}"
    yield Check("edge tpu runtime", version >= _COMPILER_16_NEEDS, detail, _apt(device, options), advice=True)


def _apt(device: Device, options: BoardOptions) -> str:
    clock = "max" if options.clock == "maximum" else "std"
    return run_there(device, f"sudo apt update && sudo apt install libedgetpu1-{clock}")


def _power(machine: dict[str, Any], state: dict[str, Any], device: Device) -> Iterator[Check]:
    """The Raspberry Pi's word on its power supply and its clock."""
    try:
        word = int(_text(state.get("throttled")), 16)
    except ValueError:
        if "raspberry" in _model(machine):
            yield Check("power", True, _ABSENT)
            yield Check("clock", True, _ABSENT)
        return
    restart = run_there(device, "sudo reboot")
    supply = "give the board the power supply that its maker names"
    yield _limit("power", word, _UNDER_VOLTAGE, "under-voltage", supply, restart)
    yield _limit("clock", word, _SLOWED, "slowed down", "cool the board", restart)


def _limit(name: str, word: int, bits: int, what: str, mend: str, restart: str) -> Check:
    if word & bits:
        return Check(name, False, f"{what} now (word {word:#x})", mend)
    if word & bits << _SINCE_START:
        return Check(name, False, f"{what} since it started, not now (word {word:#x})", restart, advice=True)
    return Check(name, True, f"not {what}")


def _temperature(zones: Any, hottest_c: float) -> Check:
    known = zones.items() if isinstance(zones, dict) else ()
    found = [(number, _text(zone)) for zone, value in known if (number := _number(value)) is not None]
    if not found:
        return Check("temperature", True, _ABSENT)
    hottest, zone = max(found)
    detail = f"{hottest:.0f} °C at most, in {zone or 'a zone'}"
    return Check("temperature", hottest < hottest_c, detail, "let it cool, or give it a fan", advice=True)


def _at_least(name: str, free_mb: Any, least_mb: int, mend: str) -> Check:
    free = _number(free_mb)
    if free is None:
        return Check(name, True, _ABSENT)
    return Check(name, free >= least_mb, f"{free:.0f} MB free, {least_mb} MB needed", mend)


def _governor(reported: Any, device: Device) -> Check:
    governor = _text(reported)
    if not governor:
        return Check("governor", True, _ABSENT)
    files = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    mend = run_there(device, f"echo performance | sudo tee {files}")
    return Check("governor", governor == "performance", governor, mend, advice=True)


def _frequency(state: dict[str, Any]) -> Check:
    now, most = _number(state.get("freq_mhz")), _number(state.get("max_freq_mhz"))
    if now is None or most is None:
        return Check("frequency", True, _ABSENT)
    # Any other governor slows an idle processor down: that says nothing of how fast it measures.
    full = now >= 0.95 * most or _text(state.get("governor")) != "performance"
    return Check("frequency", full, f"{now:.0f} of {most:.0f} MHz", "cool the machine", advice=True)


def _load(reported: Any, cores: Any, mend: str) -> Check:
    load, count = _number(reported), _number(cores)
    if load is None or count is None:
        return Check("load", True, _ABSENT)
    return Check("load", load <= count, f"load {load:.1f} on {count:.0f} cores", mend, advice=True)


def _jetson(machine: dict[str, Any], state: dict[str, Any], device: Device) -> Iterator[Check]:
    model = _model(machine)
    if not (machine.get("jetpack") or "jetson" in model or device.runtime == "tensorrt"):
        return
    mode, clocks = _text(state.get("power_mode")), _text(state.get("jetson_clocks")).lower()
    mend = run_there(device, "sudo nvpmodel -m 0")
    # Mode 0 is the most a module may draw, whatever its name.
    most = not mode or "MAXN" in mode.upper() or mode.split()[0] == "0"
    yield Check("power mode", most, mode or _ABSENT, mend, advice=True)
    mend = run_there(device, "sudo jetson_clocks")
    fixed = clocks in ("", "true", "on", "1")
    detail = ("clocks fixed at their highest" if fixed else "clocks vary") if clocks else _ABSENT
    yield Check("jetson clocks", fixed, detail, mend, advice=True)


def _adb(device: Device) -> list[str]:
    return ["adb", *(["-s", device.host] if device.host else [])]


def _install(device: Device, package: str = "") -> str:
    if device.kind != "local":
        # A Python of the device's own choice would go before the one that is installed.
        unset = (
            f" && ehdnas devices set {device.name} options.python=" if device.options.get("python") else ""
        )
        return f"ehdnas devices install {device.name}{unset}"
    wanted = package or ("onnxruntime" if device.runtime == "onnxruntime" else "ai-edge-litert")
    return shlex.join(["pip", "install", wanted])


def _tried(answer: dict[str, Any]) -> list[dict[str, Any]]:
    tried = answer.get("interpreters")
    return [one for one in tried if isinstance(one, dict)] if isinstance(tried, list) else []


def _used(answer: dict[str, Any]) -> str:
    """Return "name version" of the interpreter that works, or ""."""
    whole = [one for one in _tried(answer) if _text(one.get("name")) and not _text(one.get("reason"))]
    names = [f"{_text(one.get('name'))} {_text(one.get('version'))}".strip() for one in whole]
    return _text(answer.get("interpreter")) or (names[0] if names else "")


def _model(machine: dict[str, Any]) -> str:
    return _text(machine.get("model")).lower()


def _table(answer: dict[str, Any], key: str) -> dict[str, Any]:
    value = answer.get(key)
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An integer beyond what a float holds is no reading either.
    return float(value) if abs(value) < 1e15 and math.isfinite(value) else None


def _text(value: Any) -> str:
    """Return a reading as one line that is safe to print; "" where there is none."""
    if value is None or isinstance(value, dict | list):
        return ""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(value)[:300])
    return " ".join(shown.split())


def _version(text: str) -> tuple[int, ...]:
    match = re.match(r"(\d{1,9})(?:\.(\d{1,9}))?", text)
    return tuple(int(part) for part in match.groups() if part) if match else ()
