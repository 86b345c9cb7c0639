"""What a machine without Python says of itself, in the agent's words: a phone over adb, mostly."""

from __future__ import annotations

import re
from typing import Any

from ehdnas.core.remote import Transport

# One `key value` pair a line; what cannot be read prints nothing.
_SCRIPT = """
say() { test -n "$2" && echo "$1 $2"; };
first() { head -n 1 "$1" 2>/dev/null; };
c=/sys/devices/system/cpu/cpu0/cpufreq;
say governor "$(first $c/scaling_governor)";
say freq_khz "$(first $c/scaling_cur_freq)";
say max_freq_khz "$(first $c/cpuinfo_max_freq)";
say load "$(first /proc/loadavg | cut -d " " -f 1)";
say memory_kb "$(grep MemAvailable /proc/meminfo | tr -s " " | cut -d " " -f 2)";
say machine "$(uname -m)";
say system "$(uname -sr)";
say cores "$(grep -c ^processor /proc/cpuinfo)";
say model "$(getprop ro.product.model 2>/dev/null)";
say os_release "$(getprop ro.build.version.release 2>/dev/null)";
say disk_kb "$(df -Pk . | tail -n 1 | tr -s " " | cut -d " " -f 4)";
for z in /sys/class/thermal/thermal_zone*; do
say "zone" "$(first $z/temp) ${z##*zone}:$(first $z/type)";
done
"""
# What `int` and `float` take is more than what a file of the system holds.
_INTEGER = re.compile(r"-?[0-9]{1,12}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_MACHINE = {"machine": str, "system": str, "model": str, "os_release": str, "cores": int}


def shell_state(there: Transport) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (what does not change, what does) of a machine, as far as its files say.

    Raises:
        DeviceError: the machine is gone.
    """
    done = there.run(["sh", "-c", " ".join(_SCRIPT.split())], 30)
    machine: dict[str, Any] = {}
    state: dict[str, Any] = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "zone":
            _add_zone(state, value)
        elif key in _MACHINE:
            machine[key] = int(value) if _MACHINE[key] is int and _INTEGER.fullmatch(value) else value[:200]
        elif key == "disk_kb" and _INTEGER.fullmatch(value):
            machine["free_disk_mb"] = int(value) // 1024
        else:
            state.update(_state(key, value))
    return machine, state


def _state(key: str, value: str) -> dict[str, Any]:
    if key == "governor":
        return {key: value[:64]}
    if key == "load" and _DECIMAL.fullmatch(value):
        return {key: float(value)}
    if key in ("freq_khz", "max_freq_khz") and _INTEGER.fullmatch(value):
        return {key.replace("khz", "mhz"): int(value) / 1000}
    if key == "memory_kb" and _INTEGER.fullmatch(value):
        return {"free_memory_mb": int(value) // 1024}
    return {}


def _add_zone(state: dict[str, Any], value: str) -> None:
    degrees, _, zone = value.partition(" ")
    if _INTEGER.fullmatch(degrees) and len(state.setdefault("temperature_c", {})) < 100:
        state["temperature_c"][zone[:64]] = int(degrees) / 1000
