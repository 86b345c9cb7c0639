"""Tables of figures that users bring along: each becomes a device that exists as these figures alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.pipeline.conditions import conditions
from ehdnas.pipeline.devices import table_device
from ehdnas.pipeline.measurements import list_groups
from ehdnas.profilers.protocol import STANDARD
from ehdnas.profilers.store.plain import Column, Imported, Target, add_plain, read_plain
from ehdnas.profilers.store.store import Group, MeasurementStore
from ehdnas.search.spaces.base import NetworkShape, Space
from ehdnas.workspace import Workspace

METRICS = ("latency_ms", "throughput_fps", "energy_mj", "peak_memory_mb", "accuracy")
"""What a table may hold, by the names and in the units that measurements have; `accuracy` is a share of 1."""
EXAMPLE_SHAPE = "c16x15-3x32x32-10-cifar"
_SHAPE = re.compile(r"c(\d{1,4})x(\d{1,3})-(\d{1,3})x(\d{1,4})x(\d{1,4})-(\d{1,6})-(cifar|imagenet)")


def parse_shape(text: str) -> NetworkShape:
    """Return the shape that text such as `c16x15-3x32x32-10-cifar` means, the form that shapes are shown in.

    Raises:
        UsageError: it is something else.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"shape '{text[:60]}': write channels, cells, image, classes and stem as in {EXAMPLE_SHAPE}"
        )
    channels, cells, depth, height, width, classes = map(int, match.groups()[:-1])
    return NetworkShape(channels, cells, (depth, height, width), classes, match[7])


def shape_of_table(device: Device) -> NetworkShape:
    """Return the shape of the networks whose figures a device of kind `table` holds.

    Raises:
        UsageError: the device's file gives none.
    """
    return parse_shape(str(device.options.get("shape", "")))


def parse_columns(texts: Iterable[str]) -> list[Column]:
    """Return the columns that `METRIC=COLUMN`, `METRIC=COLUMN%` (in percent) or `METRIC` mean.

    Raises:
        UsageError: a metric that there is not, or that is given twice.
    """
    found: dict[str, Column] = {}
    for text in texts:
        metric, _, name = (part.strip() for part in text.partition("="))
        if metric not in METRICS:
            raise UsageError(f"--column '{text[:60]}': no metric '{metric[:60]}'{nearest(metric, METRICS)}")
        if metric in found:
            raise UsageError(f"--column: {metric} is given twice; a device has one figure of a kind")
        if name.endswith("%") and metric != "accuracy":
            raise UsageError(f"--column '{text[:60]}': only an accuracy can be in percent")
        percent = name.endswith("%")
        found[metric] = Column(metric, f"{metric}{name}" if name in ("", "%") else name, percent)
    return list(found.values())


def import_table(
    workspace: Workspace, path: Path, space: Space, device: str, shape: str, columns: list[Column],
    origin: str = "",
) -> Imported:  # fmt: skip
    """Add a table's figures, all or none, as measurements of a device that exists for them.

    They are marked as imported, and their passports say that it is not known how they were measured. Nothing
    is added twice: the same figures of the same networks are recognised.

    Raises:
        DataError: a row that cannot be right, by its number; nothing was added then.
        UsageError: no architecture column, a shape that the space cannot have, a device that is measured, or
            one of which this project has figures of networks of another shape.
    """
    size = parse_shape(shape)
    space.check_shape(size)
    table = read_plain(path, columns, _subject(space))
    held = {group.shape for group in list_groups(workspace) if group.device == device}
    of = table_device(device, str(size), path.name, held)
    target = Target(of.name, space.name, str(size), of.precision, conditions(of, STANDARD))
    with MeasurementStore(workspace.database) as store:
        return add_plain(store, table, target, origin or path.stem)


def spaces_of_table(name: str, groups: Iterable[Group]) -> list[str]:
    """Return the spaces of whose networks a table's figures are, of what a workspace has stored."""
    return sorted({group.space for group in groups if group.device == name})


def nothing_told(name: str, space: str, shape: NetworkShape, groups: Iterable[Group]) -> str:
    """Return what to say where a table tells nothing of a space at a shape, and what to do about it.

    Args:
        groups: all that the workspace has stored.
    """
    own = [group for group in groups if group.device == name]
    spaces = spaces_of_table(name, own)
    if not own:
        return (
            f"no figures of table '{name}' are in this project; import them with `ehdnas measurements import "
            f"FILE --device {name} --space {space} --shape {shape} --column latency_ms=COLUMN`"
        )
    nothing = f"nothing is stored of '{space}' at {shape} on {name}"
    if space not in spaces:
        return f"{nothing}; its figures are of {_quoted(spaces)}: add --space {spaces[0]}"
    there = next(group.shape for group in own if group.space == space)
    return f"{nothing}; what this project has is of {there}: import it again with --shape {there}"


def space_hint(name: str, space: str, groups: Iterable[Group]) -> str:
    """Return "; ... add --space ..." where a table's figures are all of other spaces, else nothing."""
    spaces = spaces_of_table(name, groups)
    if not spaces or space in spaces:
        return ""
    return f"; the figures of '{name}' are of space {_quoted(spaces)}: add --space {spaces[0]}"


def _quoted(names: list[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _subject(space: Space) -> Callable[[str], str | None]:
    """Return what gives an architecture's text form from any text; None where it is no valid network."""

    def subject(text: str) -> str | None:
        architecture = space.parse(_digits(text) if text.lstrip().startswith("[") else text)
        return space.text(architecture) if space.is_valid(architecture) else None

    return subject


def _digits(text: str) -> str:
    """Return the digits of a JSON list of choices."""
    try:
        choices = json.loads(text)
    except (ValueError, RecursionError):
        choices = None
    if not isinstance(choices, list) or not all(type(one) is int and 0 <= one <= 9 for one in choices):
        raise UsageError(f"'{text[:60]}' is not a list of the choices' numbers")
    return "".join(map(str, choices))
