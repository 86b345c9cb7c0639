"""How a search searches: what each method needs, and that it is there."""

from __future__ import annotations

from ehdnas.core.errors import UsageError
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.context import Context
from ehdnas.settings import GRADIENT, GUIDED


def method_of(context: Context) -> str:
    """Return the method: as set, else by gradient, and on a table of imported figures guided by queries.

    Raises:
        UsageError: the method needs what the device does not have, or takes no queries.
    """
    settings, device = context.settings, context.device
    if device.kind == TABLE:
        if settings.method == GRADIENT:
            raise UsageError(
                f"--method {GRADIENT} trains a supernet and measures candidates, and '{device.name}' is a "
                " table of imported figures, where nothing more can be measured; there --method is "
                f" {GUIDED}, random or evolution"
            )
        return settings.method or GUIDED
    if settings.method == GUIDED:
        raise UsageError(
            f"--method {GUIDED} queries a table of accuracies, and '{device.name}' is none; import one with "
            " `ehdnas measurements import`, or take gradient, random or evolution"
        )
    if settings.queries is not None:
        raise UsageError(
            f"--queries counts accuracies asked of a table, and '{device.name}' is none; there random and "
            "evolution score as many networks as the search by gradient costs"
        )
    return settings.method or GRADIENT
