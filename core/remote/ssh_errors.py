"""The many ways in which paramiko fails, as one line each."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ehdnas.core.errors import DeviceError

if TYPE_CHECKING:
    import paramiko


@contextlib.contextmanager
def device_errors(what: str, remedy: str) -> Iterator[None]:
    """Turn every failure of paramiko or a socket into one line.

    Raises:
        DeviceError: `what` went wrong, why, and the `remedy`.
    """
    import paramiko

    try:
        yield
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise DeviceError(f"{what}: {_reason(error)}; {remedy}") from error


@contextlib.contextmanager
def answered_within(channel: paramiko.Channel, limit_s: float) -> Iterator[None]:
    """Close `channel` if the body takes longer: paramiko waits for the reply to a request without a limit."""
    timer = threading.Timer(limit_s, channel.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the connection was closed"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
