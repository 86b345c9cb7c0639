"""The tables of a TensorFlow Lite file, read through the generated schema with every length bounded.

Nothing in the file is trusted. The flatbuffer accessors and numpy check each offset, and raise one of
`DAMAGE`; lengths are checked here, before anything of that length is read. Tables may share what they point
to, so that a small file can describe endless work: the whole of it is bounded too.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAMAGE = (struct.error, TypeError, ValueError, IndexError, OverflowError, MemoryError)

# Elements and characters a file may make us read, and what a table counts for: networks of ten thousand
# operators stay below, and the limit is reached in seconds.
_MAX_WORK = 4_000_000
_TABLE_WORK = 64
_OPTION_ENUMS = {
    "fused_activation_function": "ActivationFunctionType",
    "padding": "Padding",
    "weights_format": "FullyConnectedOptionsWeightsFormat",
}


@cache
def load_schema() -> Any:
    """Return the module of the generated schema: that of LiteRT, else TensorFlow's.

    Raises:
        ImportError: neither is installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        from tensorflow.lite.python import schema_py_generated as schema
    return schema


def enum_name(enum: str, number: int) -> str:
    """Return the schema's name for a number of `enum`, or `UNKNOWN_<number>`."""
    return _names(enum).get(number, f"UNKNOWN_{number}")


@cache
def _names(enum: str) -> dict[int, str]:
    members = vars(getattr(load_schema(), enum))
    return {number: name for name, number in members.items() if isinstance(number, int)}


class Tables:
    """One file's tables, from `model` down; what is damaged raises one of `DAMAGE`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.model = load_schema().Model.GetRootAs(data, 0)
        self._work = 0

    def charge(self, work: int) -> None:
        """Count `work` elements towards the limit."""
        self._work += work
        if self._work > _MAX_WORK:
            raise ValueError("it describes more than any network holds")

    def length(self, table: Any, name: str) -> int:
        """Return the length of a vector of `table`, for which the file must have room."""
        length = int(getattr(table, f"{name}Length")())
        if length > len(self.data):
            raise ValueError(f"a vector of {length} elements does not fit into it")
        return length

    def tables(self, table: Any, name: str) -> Iterator[Any]:
        """Return the tables of a vector of `table`."""
        length = self.length(table, name)
        self.charge(_TABLE_WORK * length)
        return map(getattr(table, name), range(length))

    def numbers(self, table: Any, name: str) -> tuple[Any, ...]:
        """Return the numbers of a vector of `table`; none where it is absent."""
        length = self.length(table, name)
        self.charge(length)
        return tuple(getattr(table, f"{name}AsNumpy")().tolist()) if length else ()

    def indices(self, table: Any, name: str, count: int) -> tuple[int, ...]:
        """Return a vector of indices below `count`, -1 for what is left out."""
        found = self.numbers(table, name)
        if any(not -1 <= index < count for index in found):
            raise ValueError(f"its {name.lower()} name a tensor that is not there")
        return found

    def text(self, raw: bytes | None) -> str:
        """Return a string of the file on one line, with a space for what cannot be printed."""
        self.charge(len(raw or b""))
        decoded = (raw or b"").decode("utf-8", "replace")
        return "".join(c if c.isprintable() else " " for c in decoded)

    def buffer(self, index: int) -> NDArray[Any]:
        """Return the bytes of a buffer, uncopied; those of a large file lie behind its tables."""
        if index >= self.length(self.model, "Buffers"):
            raise ValueError(f"it names buffer {index}, which is not there")
        buffer = self.model.Buffers(index)
        if buffer.Offset() > 1:
            return np.frombuffer(self.data, np.uint8, buffer.Size(), buffer.Offset())
        if not self.length(buffer, "Data"):
            return np.empty(0, np.uint8)
        data: NDArray[Any] = buffer.DataAsNumpy()
        return data

    def options(self, operator: Any) -> dict[str, Any]:
        """Return the fields of an operator's builtin options by snake-case name, enums as their names."""
        schema = load_schema()
        found: dict[str, Any] = {}
        for suffix in ("", "2"):
            kind = getattr(operator, f"BuiltinOptions{suffix}Type")()
            table = getattr(operator, f"BuiltinOptions{suffix}")()
            options = getattr(schema, enum_name(f"BuiltinOptions{suffix}", kind), None)
            if kind and table is not None and options is not None:
                view = options()
                view.Init(table.Bytes, table.Pos)
                found |= {key: self._option(view, key, name, many) for key, name, many in _fields(options)}
        return {key: value for key, value in found.items() if value is not None}

    def _option(self, options: Any, key: str, name: str, is_vector: bool) -> Any:
        if is_vector:
            return self.numbers(options, name)
        value = getattr(options, name)()
        if isinstance(value, bytes):
            return self.text(value)
        if key in _OPTION_ENUMS:
            return enum_name(_OPTION_ENUMS[key], value)
        # Options within options belong to operators that no rule or exporter of ours looks into.
        return value if isinstance(value, int | float) else None


@cache
def _fields(options: Any) -> tuple[tuple[str, str, bool], ...]:
    """Return the fields of a class of options: snake-case name, accessor, whether a vector of numbers."""
    members = set(vars(options))
    vectors = {name.removesuffix("Length") for name in members if name.endswith("Length")}
    derived = {f"{name}{suffix}" for name in vectors for suffix in ("AsNumpy", "Length", "IsNone")}
    accessors = [
        name
        for name in sorted(members - derived)
        if name[0].isupper() and not name.startswith("GetRootAs") and not name.endswith("HasIdentifier")
    ]
    return tuple(
        (re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(), name, name in vectors)
        for name in accessors
        if name != "Init" and (name not in vectors or f"{name}AsNumpy" in members)
    )
