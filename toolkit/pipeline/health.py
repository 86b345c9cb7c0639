"""Whether the devices can be used, before hours are spent: what `ehdnas doctor` looks at, all at once."""

from __future__ import annotations

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceError, EhdnasError
from ehdnas.core.export_options import ExportOptions
from ehdnas.exporters.edgetpu.compiler import CompilerOptions, find_compiler
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.context import Context
from ehdnas.profilers.base import Check, find_profiler


def require_healthy(context: Context) -> None:
    """Look at every real device and warn of what makes figures worse.

    Raises:
        DeviceError: a device, or each of its boards, cannot be used; the message says what mends it.
    """
    for one in context.each_device():
        if one.device.simulated or one.device.kind == TABLE:
            continue
        failures = {
            board.name: _failures(one, board.name, find_profiler(board).check()) for board in one.boards
        }
        first = next((text for text in failures.values() if text), None)
        if first is not None and all(failures.values()):
            raise DeviceError(first)
        if first is not None:
            one.reporter.warn(f"doctor: {first}; going on with the other boards")


def compiler_checks(device: Device, options: ExportOptions) -> list[Check]:
    """Return whether files for a device can be compiled, where it takes compiled ones alone."""
    if device.runtime != "edgetpu":
        return []
    mend = 'install edgetpu_compiler (x86-64 Linux), or set compiler = "docker:IMAGE" or "ssh:USER@HOST"'
    try:
        compiler = find_compiler(CompilerOptions.of(options))
        if compiler is None:
            return [Check("compiler", False, "no edgetpu_compiler on PATH here", mend)]
        return [Check("compiler", True, compiler.version())]
    except EhdnasError as error:
        return [Check("compiler", False, str(error), mend)]


def _failures(context: Context, name: str, checks: list[Check]) -> str | None:
    """Return the first thing that stands in the way, in a line, and warn of what does not."""
    for check in checks:
        if not check.passed and check.advice:
            context.reporter.warn(f"doctor: {name}: {_said(check)}")
    return next((f"{name}: {_said(one)}" for one in checks if not one.passed and not one.advice), None)


def _said(check: Check) -> str:
    return f"{check.name}: {check.detail}" + (f"; {check.mend.strip()}" if check.mend else "")
