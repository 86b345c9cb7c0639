"""What every paradigm of E2E-Perf is: resources, checked when made, and the cycles they take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ehdnas.core.layers import Layer


class Paradigm(BaseModel, ABC):
    """An accelerator of one paradigm, timed in one mode. The fields are keys of a device's options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paradigm: ClassVar[str]
    mode: ClassVar[str]

    clock_mhz: float = Field(gt=0, allow_inf_nan=False)

    @abstractmethod
    def cycles(self, layers: Sequence[Layer]) -> NDArray[np.int64]:
        """Return the cycles [n] of each of n layers.

        Raises:
            MeasurementError: a layer is not modelled; the message names it and its operator.
        """

    @abstractmethod
    def timing(self, layers: Sequence[Layer]) -> tuple[float, float]:
        """Return (cycles from an image in to its result out, cycles between two results) of a network."""

    def published(self, choices: NDArray[np.integer]) -> NDArray[np.int64] | None:
        """Return published cycles [n] of DARTS networks `choices` [n, 28]; None where there are none."""
        return None
