"""What an accelerator can be built on: the resources of an FPGA board, from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest

_FOLDER = Path(__file__).parent


class Board(BaseModel):
    """Resources of a board: DSP slices, BRAM blocks of 18 Kbit, URAM blocks, LUTs, external GB/s (1e9 bytes).

    URAM is listed, not used: no model here places anything in it. External GB/s are the peak of the memory's
    pins, of which a design reaches a share. `sources` says of a figure where it was confirmed, and stays out
    of results; `unverified` names the figures that no source has confirmed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    dsp: int = Field(gt=0)
    bram18: int = Field(gt=0)
    uram: int = Field(default=0, ge=0)
    lut: int = Field(gt=0)
    ddr_gbps: float = Field(gt=0, allow_inf_nan=False)
    unverified: list[str] = Field(default_factory=list)
    sources: dict[str, str] = Field(default_factory=dict, exclude=True)


def board_names() -> list[str]:
    """Return the names of the boards that ship with the simulator."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_board(description: str | dict[str, Any], where: str) -> Board:
    """Return a board by the name of a built-in one, or from a table of its resources.

    Args:
        where: what the description belongs to, for errors.

    Raises:
        UsageError: no such board, or a key of the table is unknown, missing or not positive.
    """
    if isinstance(description, str):
        if description not in board_names():
            raise UsageError(f"{where}: unknown board '{description}'{nearest(description, board_names())}")
        description = tomllib.loads((_FOLDER / f"{description}.toml").read_text())
    for key in description:
        if key not in Board.model_fields:
            raise UsageError(f"{where}: board: unknown key '{key}'{nearest(key, Board.model_fields)}")
    try:
        return Board(**description)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{where}: board: key '{'.'.join(map(str, first['loc']))}': {first['msg']}"
        ) from error
