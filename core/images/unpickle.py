"""Reads the pickles of CIFAR-10 without unpickling: a machine that knows a few opcodes and calls nothing.

Python's own unpickler, even with its globals restricted, lets a small file ask for gigabytes (a memo index
of 2**31, repeated `encode` calls) or hash nested tuples for ever. Here a file can build only numbers, text,
lists, tuples, dictionaries with text keys and views of bytes; every other opcode and global is refused by
name. No message shows an object that the file built: its `repr` may be endless as well. Arrays are
recognised as numpy 1 and numpy 2 write them, but numpy never sees the file's arguments.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The largest pickle of 10,000 images (bytes as UTF-8 text, protocol 2) is just under 62 MB.
MAX_BYTES = 80_000_000

_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "NONE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_GLOBALS = {
    "numpy.core.multiarray._reconstruct": "array",  # numpy 1
    "numpy._core.multiarray._reconstruct": "array",  # numpy 2
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",  # how Python 3 writes bytes in protocol 2
}


class RefusedError(ValueError):
    """The pickle wants something that no CIFAR-10 batch needs."""


class ArrayState:
    """An array while it is being read; `rows` is a read-only view once its state has come."""

    rows: NDArray[np.uint8] | None = None

    def build(self, state: Any) -> None:
        """Take the state tuple that numpy writes: (version, shape, dtype, Fortran order, bytes)."""
        _, shape, dtype, fortran, data = state
        if dtype is not _UINT8 or type(data) is not bytes or type(shape) is not tuple:
            raise RefusedError("an array that is not of bytes (uint8)")
        if any(type(side) is not int or side < 0 for side in shape) or math.prod(shape) != len(data):
            raise RefusedError(f"an array whose shape does not fit its {len(data):,} bytes")
        self.rows = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran is True else "C")


class _Global:
    """A recognised global; it is compared by its role and never called."""

    def __init__(self, role: str) -> None:
        self.role = role


_UINT8 = _Global("uint8")


class _Machine:
    """The stack, marks and memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise RefusedError(
                    f"the opcode {name}" + (f" with {argument!r:.60}" if argument is not None else "")
                )
        return self.stack.pop()

    def above_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def make_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("stack underflow")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise RefusedError("to append to something that is not a list")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        # Only text keys: hashing nested tuples can take for ever.
        keys, values = items[::2], items[1::2]
        if type(self.stack[-1]) is not dict or any(type(key) not in (bytes, str) for key in keys):
            raise RefusedError("a dictionary with keys that are not text")
        self.stack[-1].update(zip(keys, values, strict=True))

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise RefusedError("a global whose name is not text")
        role = _GLOBALS.get(f"{module}.{name}")
        if role is None:
            raise RefusedError(f"the global {module:.60}.{name:.60}")
        self.stack.append(_Global(role))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        role = function.role if type(function) is _Global else "a value"
        if type(arguments) is not tuple:
            raise RefusedError("a call without a tuple of arguments")
        if role == "array":
            self.stack.append(ArrayState())
        elif role == "dtype" and arguments[0] in ("u1", b"u1"):
            self.stack.append(_UINT8)
        elif role == "encode":
            self.stack.append(self.encode(*arguments))
        else:
            raise RefusedError(f"a call of {role} that makes no array of bytes")

    def encode(self, text: str, encoding: str) -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise RefusedError("to encode something other than latin-1 text")
        # One text can be encoded again and again for a few bytes of file each time.
        self.encoded += len(text)
        if self.encoded > MAX_BYTES:
            raise RefusedError(f"to encode more than {MAX_BYTES:,} characters")
        return text.encode("latin-1")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, ArrayState):
            target.build(state)
        elif target is not _UINT8:  # a dtype's state is its byte order, and bytes have none
            raise RefusedError("to set the state of something that is not an array")


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    # Text of Python 2 is bytes; genops reads it as latin-1.
    "BINSTRING": lambda machine, text: machine.stack.append(text.encode("latin-1")),
    "SHORT_BINSTRING": lambda machine, text: machine.stack.append(text.encode("latin-1")),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.above_mark())),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.above_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.above_mark()),
    "BINPUT": lambda machine, index: machine.memo.__setitem__(index, machine.stack[-1]),
    "LONG_BINPUT": lambda machine, index: machine.memo.__setitem__(index, machine.stack[-1]),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    "BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.stack.append(machine.memo[index]),
    "GLOBAL": lambda machine, name: machine.find(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.find(machine.stack.pop(-2), machine.stack.pop()),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}


def read_pickle(data: bytes) -> dict[bytes, Any]:
    """Return the dictionary in a CIFAR-10 pickle, text keys as bytes; an array in it is an `ArrayState`.

    Raises:
        RefusedError: it wants an opcode, a global or an object that no CIFAR-10 file needs.
        ValueError: it is truncated, damaged, or holds no dictionary.
    """
    try:
        value = _Machine().run(data)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if type(value) is not dict:
        raise ValueError(f"it holds a {type(value).__name__}, not a dictionary")
    return {key.encode() if isinstance(key, str) else key: item for key, item in value.items()}
