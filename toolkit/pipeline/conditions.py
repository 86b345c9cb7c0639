"""What a measurement depends on besides the network: figures of other conditions are never mixed with it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ehdnas.core.device import Device
from ehdnas.profilers.protocol import Protocol

TABLE = "table"
"""The kind of a device that exists as imported figures alone: nothing reaches it, so it takes no more."""

# The options that change what a clock says; the others only say how the device is reached.
_TIMED_WITH = ("cpus", "delegate", "delegate_options", "tool", "clock")


def conditions(device: Device, protocol: Protocol) -> str:
    """Return what, besides the network, a measurement depends on: protocol, runtime, accelerator."""
    if device.simulated:
        return f"simulated-{_hash(device.options)}"
    if device.kind == TABLE:
        return "unknown"  # how its figures were taken is not known, whatever is asked for here
    text = f"{protocol.settings_hash}-{device.runtime}-t{device.threads}"
    if device.precision != "fp32":
        text += f"-{device.precision}"
    timed_with = {name: device.options[name] for name in _TIMED_WITH if device.options.get(name)}
    return f"{text}-{_hash(timed_with)}" if timed_with else text


def _hash(options: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]
