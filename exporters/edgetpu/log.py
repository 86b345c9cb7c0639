"""What the Edge TPU compiler made of a model, from its output and its operation log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from ehdnas.exporters.edgetpu.reader import Block, OperatorRow, Reader, read

__all__ = ["Compilation", "OperatorRow", "add_segments", "parse_compilation", "parse_compilations"]

_MAX_REASON = 400


class Compilation(BaseModel):
    """What the compiler made of one model, or of one segment of it; what it did not say is None.

    A compilation can succeed with nothing on the TPU: then `on_tpu` is 0. `complete` says whether `on_tpu`
    and `on_cpu`, in operations, add up to the total that the compiler states; in a truncated log they may
    not, and `operators` may lack rows. `failure` is one line, and None when the compilation succeeded.
    `cached_bytes` of parameters stay in the TPU's memory, `cache_remaining_bytes` of it are left, and
    `streamed_bytes` of parameters cross the bus at each run; sizes are as the compiler rounds them. Models
    compiled together share one `compile_ms`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    compiler_version: str | None = None
    input_model: str | None = None
    output_model: str | None = None
    segments: int = 1
    succeeded: bool
    failure: str | None = None
    compile_ms: float | None = None
    input_size_bytes: int | None = None
    output_size_bytes: int | None = None
    cached_bytes: int | None = None
    cache_remaining_bytes: int | None = None
    streamed_bytes: int | None = None
    subgraphs: int | None = None
    total_operations: int | None = None
    on_tpu: int = 0
    on_cpu: int = 0
    complete: bool = False
    operators: list[OperatorRow] = []


_SUMS = ("input_size_bytes", "output_size_bytes", "cached_bytes", "streamed_bytes", "subgraphs")


def parse_compilation(output: str, log: str = "", exit_code: int = 0) -> Compilation:
    """Return what one model's compilation gave, several blocks taken as its segments and added up.

    `output` is what the compiler printed, with `-s` or without, `log` the text of its operation log. A
    compilation that failed is returned, not raised.

    Raises:
        ExportError: the text is absurdly large.
    """
    found = parse_compilations(output, {"": log}, exit_code)
    return found[0] if len(found) == 1 else add_segments(found)


def parse_compilations(
    output: str, logs: Mapping[str, str] | None = None, exit_code: int = 0
) -> list[Compilation]:
    """Return one compilation for each `Input model:` block of `output`, and one more if the run failed.

    `logs` are the texts of operation logs by file name; in one whose name is empty, blocks stand in the
    order of those of `output`.

    Raises:
        ExportError: the text is absurdly large.
    """
    spoken = read(output)
    written = {name: read(text) for name, text in (logs or {}).items()}
    found = [
        _compilation(block, _log_of(block, index, written), spoken.version)
        for index, block in enumerate(spoken.blocks)
        if block.figures["compile_ms"] is not None
    ]
    if exit_code != 0 or spoken.failed or not found:
        failure = _failure(spoken, exit_code)
        found.append(Compilation(compiler_version=spoken.version, succeeded=False, failure=failure))
    return found


def add_segments(parts: Sequence[Compilation]) -> Compilation:
    """Return the segments of one model, at least one, as one compilation named as the first of them.

    Sizes, counts and times are sums, each segment having a TPU of its own; `cache_remaining_bytes` is the
    least of them. A figure that one segment lacks is None. Rows alike in operator and status are one.
    """
    remaining = [part.cache_remaining_bytes for part in parts if part.cache_remaining_bytes is not None]
    failures = [part.failure for part in parts if part.failure is not None]
    rows: Counter[tuple[str, str, bool]] = Counter()
    for row in (row for part in parts for row in part.operators):
        rows[row.operator, row.status, row.mapped] += row.count
    figures: dict[str, Any] = {
        name: _sum(getattr(part, name) for part in parts)
        for name in (*_SUMS, "compile_ms", "total_operations", "on_tpu", "on_cpu")
    }
    figures |= {
        "segments": sum(part.segments for part in parts),
        "succeeded": not failures,
        "failure": failures[0] if failures else None,
        "cache_remaining_bytes": min(remaining) if len(remaining) == len(parts) else None,
        "complete": all(part.complete for part in parts),
        "operators": [
            OperatorRow(operator=operator, count=count, status=status, mapped=mapped)
            for (operator, status, mapped), count in rows.items()
        ],
    }
    return Compilation.model_validate({**parts[0].model_dump(), **figures})


def _sum(values: Iterable[float | None]) -> float | None:
    total: float = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _log_of(block: Block, index: int, written: Mapping[str, Reader]) -> Block:
    stated = PurePosixPath(str(block.figures.get("operation_log") or "")).name
    for name, position in ((stated, 0), ("", index)):
        if name in written and position < len(written[name].blocks):
            return written[name].blocks[position]
    return Block()


def _compilation(block: Block, log: Block, version: str | None) -> Compilation:
    figures = {name: value for name, value in block.figures.items() if name in Compilation.model_fields}
    stated_tpu, stated_cpu = block.figures.get("stated_on_tpu"), block.figures.get("stated_on_cpu")
    total = block.figures.get("total_operations")
    rows = max(block.rows, log.rows, key=lambda rows: (_operations(rows), len(rows)))
    on_tpu = sum(row.count for row in rows if row.mapped)
    on_cpu = _operations(rows) - on_tpu
    # Rows say more than the two counts do, but a truncated log lacks some of them.
    if isinstance(stated_tpu, int) and isinstance(stated_cpu, int) and total != on_tpu + on_cpu:
        on_tpu, on_cpu = stated_tpu, stated_cpu
    settled = {
        "compiler_version": version,
        "succeeded": True,
        "on_tpu": on_tpu,
        "on_cpu": on_cpu,
        "complete": total == on_tpu + on_cpu,
        "operators": rows,
    }
    return Compilation.model_validate({**figures, **settled})


def _operations(rows: Sequence[OperatorRow]) -> int:
    return sum(row.count for row in rows)


def _failure(spoken: Reader, exit_code: int) -> str:
    """Return why the run failed, in one line."""
    silence = f"it ended with exit code {exit_code} and gave no reason"
    line = " ".join("; ".join(spoken.why()).split()) or silence
    return line if len(line) <= _MAX_REASON else f"{line[: _MAX_REASON - 1]}…"
