"""How a search searches: what each method needs, and that it is there."""

from __future__ import annotations

from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.context import Context
from ehdnas.settings import GRADIENT, GUIDED


def method_of(context: Context) -> str:
    """Return the method: as set, else by gradient, and on a table of imported figures guided by queries.

    Raises:
        UsageError: the method needs what the device does not have, or takes no queries.
    """
    settings, device = context.settings, table_of(context)
    if device is not None:
        if settings.method == GRADIENT:
            raise UsageError(
                f"--method {GRADIENT} trains a supernet and measures candidates, and '{device.name}' is a "
                " table of imported figures, where nothing more can be measured; there --method is "
                f" {GUIDED}, random or evolution"
            )
        return settings.method or GUIDED
    names = ", ".join(one.device.name for one in context.each_device())
    if settings.method == GUIDED:
        raise UsageError(
            f"--method {GUIDED} queries a table of accuracies, and '{names}' is none; import one with "
            " `ehdnas measurements import`, or take gradient, random or evolution"
        )
    if settings.queries is not None:
        raise UsageError(
            f"--queries counts accuracies asked of a table, and '{names}' is none; there random and "
            "evolution score as many networks as the search by gradient costs"
        )
    if settings.pareto is not None and settings.method not in (None, GRADIENT):
        raise UsageError(
            f"--pareto is for the search by gradient, not --method {settings.method}; leave one of them out"
        )
    return settings.method or GRADIENT


def table_of(context: Context) -> Device | None:
    """Return the device if it is a table of imported figures.

    Raises:
        UsageError: it is one of several devices, or a front is asked of it.
    """
    devices = [one.device for one in context.each_device()]
    table = next((one for one in devices if one.kind == TABLE), None)
    if table is None:
        return None
    if len(devices) > 1:
        raise UsageError(
            f"device '{table.name}' is a table of imported figures, where no other device's network can be "
            "measured; name it alone"
        )
    if context.settings.pareto is not None:
        raise UsageError(
            f"--pareto trains a supernet, and '{table.name}' is a table of imported figures; search there "
            "for one budget after another"
        )
    return table
