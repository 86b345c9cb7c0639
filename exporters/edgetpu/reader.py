"""The lines of the Edge TPU compiler's output and of its operation logs, one by one.

The text comes from a program that is not ours, often on another machine, so nothing in it is trusted: sizes
are bounded, what cannot be printed is replaced, and nothing takes more than linear time in a line's length.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from ehdnas.core.errors import ExportError

_MAX_CHARS = 8 << 20
_MAX_LINE = 4096
_MAX_REASONS = 8
_MAX_BLOCKS = 256
_MAX_ROWS = 10_000

_MAPPED = "Mapped to Edge TPU"
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(B|KiB|MiB|GiB)")
_COUNT = re.compile(r"[0-9]{1,9}")
_VERSION = re.compile(r"Edge TPU Compiler version (\S+)")
_COMPILED = re.compile(r"Models? compiled successfully in ([0-9]{1,9}(?:\.[0-9]{1,6})?) ?ms")
# A search for a delegate tries ever smaller parts of the network: what an earlier try said no longer counts.
_NEW_TRY = ("Started a compilation timeout timer", "Try to compile segment")
_VERDICTS = (
    "Compilation failed",
    "Compilation timeout",
    "Internal compiler error",
    "Invalid model:",
    "Model could not be parsed",
)
_REASONS = (*_VERDICTS, "ERROR:", "terminate", "libc++abi")
# True of every failure of their kind; said only when nothing better is.
_EMPTY_REASONS = ("Compilation failed!", "Registration failed.", "Restored original execution plan")
_PROGRESS = (
    *_NEW_TRY,
    "Edge TPU Compiler version",
    "Model compiled",
    "Models compiled",
    "Searching for valid delegate",
    "Intermediate tensors:",
    "Compilation child process completed",
)

Figure = str | int | float | None


class OperatorRow(BaseModel):
    """`count` operations of one kind that share a status, in the compiler's own words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operator: str
    count: int = Field(ge=0)
    status: str
    mapped: bool


@dataclass
class Block:
    """What was said of one model: figures by the names in `_FIGURES`, and rows of operators."""

    figures: dict[str, Figure] = field(default_factory=dict)
    rows: list[OperatorRow] = field(default_factory=list)


@dataclass
class Reader:
    """What the lines have said so far: one block a model or segment, and how the last try ended."""

    version: str | None = None
    blocks: list[Block] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    failed: bool = False
    last_words: str = ""
    _compile_ms: float | None = None
    _block_due: bool = True
    _in_table: bool = False
    _rows: int = 0

    def read(self, line: str) -> None:
        """Take one line, without spaces at its ends.

        Raises:
            ExportError: there are absurdly many models or rows.
        """
        if self._in_table and self._row(line):
            return
        self._in_table = line.split() == ["Operator", "Count", "Status"]
        key, colon, value = line.partition(":")
        if found := _COMPILED.match(line):
            self.finish()
            self._compile_ms, self._block_due = float(found[1]), True
            self.failed, self.reasons = False, []
        elif colon and key in _FIGURES:
            name, convert = _FIGURES[key]
            self._block_due |= name == "input_model"
            self._block().figures[name] = convert(value.strip())
        elif found := _VERSION.match(line):
            self.version = printable(found[1])
        elif line.startswith(_NEW_TRY):
            self.failed, self.reasons = False, []
        elif line.startswith(_REASONS):
            self._reason(line)
        elif line and not line.startswith(_PROGRESS):
            self.last_words = line

    def finish(self) -> None:
        """Account for a model that compiled, and of which nothing more was said."""
        if self._block_due and self._compile_ms is not None:
            self._block()

    def why(self) -> list[str]:
        """Return the reasons of the last try, the telling ones if there are any."""
        reasons = [reason.removeprefix("ERROR:").strip() for reason in self.reasons]
        reasons = [reason.removeprefix("Compilation failed:").strip() for reason in reasons]
        telling = [reason for reason in reasons if reason and not reason.startswith(_EMPTY_REASONS)]
        # A shell or a loader that fails speaks in words of its own.
        spoken = [printable(self.last_words)] if self.last_words and not self.blocks else []
        return list(dict.fromkeys(telling or spoken or reasons))

    def _block(self) -> Block:
        if self._block_due:
            if len(self.blocks) == _MAX_BLOCKS:
                raise ExportError(f"the Edge TPU compiler reports more than {_MAX_BLOCKS} models")
            self.blocks.append(Block({"compile_ms": self._compile_ms}))
            self._block_due = False
        return self.blocks[-1]

    def _row(self, line: str) -> bool:
        words = line.split(maxsplit=2)
        if not words:
            return True
        if len(words) < 3 or not _COUNT.fullmatch(words[1]):
            return False
        self._rows += 1
        if self._rows > _MAX_ROWS:
            raise ExportError(f"the Edge TPU compiler lists more than {_MAX_ROWS} rows of operators")
        status = printable(words[2])
        mapped = status.startswith(_MAPPED)
        row = OperatorRow(operator=printable(words[0]), count=int(words[1]), status=status, mapped=mapped)
        self._block().rows.append(row)
        return True

    def _reason(self, line: str) -> None:
        self.failed |= line.startswith(_VERDICTS)
        reason = printable(line)
        if reason not in self.reasons and len(self.reasons) < _MAX_REASONS:
            self.reasons.append(reason)


def read(text: str) -> Reader:
    """Return what a text of the compiler says.

    Raises:
        ExportError: the text is absurdly long, or has absurdly many models or rows.
    """
    if len(text) > _MAX_CHARS:
        raise ExportError(
            f"the Edge TPU compiler printed {len(text) / 2**20:.1f} MiB, and {_MAX_CHARS >> 20} MiB are "
            "read; run edgetpu_compiler by hand to see why"
        )
    reader = Reader()
    for line in text.replace("\r", "\n").split("\n"):
        reader.read(line[:_MAX_LINE].strip())
    reader.finish()
    return reader


def printable(text: str) -> str:
    """Return `text` on one line, a space in place of what cannot be printed."""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_LINE]).strip()


def _bytes(text: str) -> int | None:
    found = _SIZE.fullmatch(text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def _count(text: str) -> int | None:
    return int(text) if _COUNT.fullmatch(text) else None


def _name(text: str) -> str | None:
    return printable(text) or None


# The compiler's words -> the figure's name, and how it is read. "Input" and "Output" stand in operation logs.
_FIGURES: dict[str, tuple[str, Callable[[str], str | int | None]]] = {
    "Input model": ("input_model", _name),
    "Input": ("input_model", _name),
    "Output model": ("output_model", _name),
    "Output": ("output_model", _name),
    "Operation log": ("operation_log", _name),
    "Input size": ("input_size_bytes", _bytes),
    "Output size": ("output_size_bytes", _bytes),
    "On-chip memory used for caching model parameters": ("cached_bytes", _bytes),
    "On-chip memory remaining for caching model parameters": ("cache_remaining_bytes", _bytes),
    "Off-chip memory used for streaming uncached model parameters": ("streamed_bytes", _bytes),
    "Number of Edge TPU subgraphs": ("subgraphs", _count),
    "Total number of operations": ("total_operations", _count),
    "Number of operations that will run on Edge TPU": ("stated_on_tpu", _count),
    "Number of operations that will run on CPU": ("stated_on_cpu", _count),
}
