"""What `ehdnas doctor` makes of the agent's report on a machine."""

from __future__ import annotations

from typing import Any

from ehdnas.profilers.base import Check
from ehdnas.profilers.board.collect import is_throttled

_MEMORY_MB = 256
_DISK_MB = 200


def machine_checks(answer: dict[str, Any]) -> list[Check]:
    """Return the checks on memory, disk, governor, throttling and load of a probed machine.

    What the machine does not report passes, and its detail says so.
    """
    machine, state = answer.get("machine", {}), answer.get("before", {})
    return [
        _at_least("memory", state.get("free_memory_mb"), _MEMORY_MB, "close other programs"),
        _at_least("disk", machine.get("free_disk_mb"), _DISK_MB, "free some space"),
        _governor(state.get("governor")),
        Check(
            "clock",
            not is_throttled(state.get("throttled")),
            f"throttling word {state['throttled']}" if "throttled" in state else "not reported",
            "cool the board, or give it a stronger power supply",
        ),
        _load(state.get("load"), machine.get("cores")),
    ]


def _at_least(name: str, free_mb: Any, least_mb: int, mend: str) -> Check:
    if not isinstance(free_mb, int):
        return Check(name, True, "not reported")
    return Check(name, free_mb >= least_mb, f"{free_mb} MB free, {least_mb} MB needed", mend)


def _governor(governor: Any) -> Check:
    if not governor:
        return Check("governor", True, "not reported")
    mend = "for steadier figures: sudo cpupower frequency-set -g performance"
    return Check("governor", governor == "performance", str(governor), mend)


def _load(load: Any, cores: Any) -> Check:
    if not isinstance(load, int | float) or not isinstance(cores, int):
        return Check("load", True, "not reported")
    return Check("load", load <= cores, f"load {load:.1f} on {cores} cores", "stop what else is running")
