"""Every error the tool raises on purpose, and the exit code each one ends a command with.

    EhdnasError               1   failed
    ├── UsageError            2   a flag, setting, genotype, budget or device that cannot be right
    ├── DataError             1   data that is absent, damaged or hostile
    ├── BudgetError           3   the budget is not met, or cannot be
    ├── DeviceError           4   the device cannot be reached or used
    │   ├── DeviceSetupError      it must be set up first: logged in to, given a runtime
    │   │   └── HostKeyError      (ehdnas.core.remote) it is not known, or not the one that is known
    │   ├── CommandTimeoutError   (ehdnas.core.remote) what ran there was ended at its limit
    │   └── ConnectionLostError   (ehdnas.core.remote) it stopped answering while in use
    ├── MeasurementError      1   the device answered, but this model could not be measured
    ├── ExportError           1   the network cannot be expressed for the target
    │   └── UnsupportedOperatorError
    ├── ParityError           5   the exported file does not agree with the network
    └── NotCompiledError      6   exported, but no compiler was there to finish the job

A message is one line: what is wrong, where, and what to do about it.
"""

from __future__ import annotations


class EhdnasError(Exception):
    """Base of every expected failure; `str(error)` is the one line the user reads."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UsageError(EhdnasError):
    """The request itself cannot be right."""

    exit_code = 2


class DataError(EhdnasError):
    """Input data is absent, damaged or hostile; the message names the file."""


class BudgetError(EhdnasError):
    """The budget is not met, or no network of the space can meet it."""

    exit_code = 3


class DeviceError(EhdnasError):
    """The device is not configured, cannot be reached, or lacks what is needed."""

    exit_code = 4


class DeviceSetupError(DeviceError):
    """The device must be set up first; to try again and change nothing helps nothing."""


class MeasurementError(EhdnasError):
    """The device works, but this model could not be measured on it."""


class ExportError(EhdnasError):
    """The network cannot be exported to the target."""


class UnsupportedOperatorError(ExportError):
    """An operator has no counterpart in the target; the message names it and its module path."""


class ParityError(EhdnasError):
    """The exported file and the network disagree by more than the target allows."""

    exit_code = 5


class NotCompiledError(EhdnasError):
    """Everything but the vendor's compiler ran: the file is there, but not compiled."""

    exit_code = 6
