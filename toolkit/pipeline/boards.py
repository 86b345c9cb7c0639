"""Which device is meant, and on which boards of it things are measured."""

from __future__ import annotations

from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.pipeline.conditions import conditions
from ehdnas.pipeline.devices import every_device, find_device
from ehdnas.profilers.protocol import STANDARD


def find_boards(text: str) -> tuple[Device, list[Device]]:
    """Return the device that `text` names, under which figures are kept, and the boards to measure on.

    `pi4` is that device: itself where it has a host, else all boards that were added as boards of it.
    `pi4-1,pi4-2` are those boards of it alone.

    Raises:
        UsageError: there is no such device, or several that are not boards of one kind.
    """
    named = [find_device(name) for name in dict.fromkeys(_names(text))]
    families = {device.family for device in named}
    if len(families) > 1 or (len(named) > 1 and not all(device.board_of for device in named)):
        raise UsageError(
            f"'{text}' are not boards of one kind; add boards with `ehdnas devices add NAME --board-of "
            "DEVICE host=USER@ADDRESS`, or name one device"
        )
    device = find_device(families.pop())
    boards = named if named[0].board_of else _boards_of(device)
    for board in boards:
        _require_same(board, device)
    return device, boards


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("no device named; see `ehdnas devices`")
    return names


def _boards_of(device: Device) -> list[Device]:
    boards = [] if device.host else [one for one in every_device() if one.board_of == device.name]
    return boards or [device]


def _require_same(board: Device, device: Device) -> None:
    for key in ("kind", "runtime", "precision", "threads"):
        if getattr(board, key) != getattr(device, key):
            raise _unlike(board, device, f"{key} {getattr(board, key)}", str(getattr(device, key)))
    if conditions(board, STANDARD) != conditions(device, STANDARD):
        raise _unlike(board, device, f"options {board.options}", str(device.options))


def _unlike(board: Device, device: Device, has: str, other: str) -> UsageError:
    return UsageError(
        f"board '{board.name}' has {has} and '{device.name}' {other}: their figures would not be of one "
        "kind; set them alike with `ehdnas devices set`, or add the board as a device of its own"
    )
