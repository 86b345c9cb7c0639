"""What the Edge TPU compiler can be asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ehdnas.core.errors import UsageError
from ehdnas.core.export_options import ExportOptions

_MAX_SEGMENTS = 64


@dataclass(frozen=True)
class CompilerOptions:
    """Where to compile, and how.

    `backend` is `auto`, `path`, `docker:IMAGE` or `ssh:USER@HOST`. `all_operators` lets the compiler map
    operators after the first that it cannot; `intermediate_tensors` end the part for the TPU, and nothing
    after them is mapped. `search_delegate` has it try smaller parts of a network that does not compile,
    `delegate_step` operations fewer each time. `timeout_s` bounds the whole compilation, in seconds.

    Raises:
        UsageError: a number or the name of a tensor cannot be right.
    """

    backend: str = "auto"
    segments: int = 1
    min_runtime_version: int | None = None
    all_operators: bool = False
    intermediate_tensors: tuple[str, ...] = ()
    search_delegate: bool = False
    delegate_step: int | None = None
    timeout_s: float = 600.0

    @classmethod
    def of(cls, options: ExportOptions) -> CompilerOptions:
        """Return what an export's options say of the compiler."""
        return cls(
            backend=options.compiler,
            segments=options.segments,
            min_runtime_version=options.min_runtime_version,
            all_operators=options.all_operators,
            timeout_s=options.compile_timeout_s,
        )

    def __post_init__(self) -> None:
        numbers = {
            "segments": (self.segments, _MAX_SEGMENTS),
            "min_runtime_version": (self.min_runtime_version, 1000),
            "delegate_step": (self.delegate_step, 100_000),
        }
        for name, (value, largest) in numbers.items():
            if value is not None and not 1 <= value <= largest:
                raise UsageError(f"{name} of the Edge TPU compiler is {value}; give 1 to {largest}")
        if not 0 < self.timeout_s <= 1e6:
            raise UsageError(
                f"timeout_s of the Edge TPU compiler is {self.timeout_s:g}; give 1 to 1e6 seconds"
            )
        if self.delegate_step is not None and not self.search_delegate:
            raise UsageError(
                "delegate_step is the step of a search; ask for search_delegate too, or leave it"
            )
        for name in self.intermediate_tensors:
            # The compiler takes a list per model, with commas in a list and colons between lists.
            if not name or name.startswith("-") or set(name) & set(",:\0"):
                raise UsageError(
                    f"the compiler cannot be told of a tensor {name!r}; choose another, or rename"
                )

    def arguments(self, folder: str) -> list[str]:
        """Return the compiler's options, to write into `folder`; the models come after them."""
        words = ["-s", "-o", folder, "--timeout_sec", str(math.ceil(self.timeout_s))]
        words += ["-m", str(self.min_runtime_version)] if self.min_runtime_version is not None else []
        words += ["-i", ",".join(self.intermediate_tensors)] if self.intermediate_tensors else []
        words += ["-n", str(self.segments)] if self.segments > 1 else []
        words += ["-a"] if self.all_operators else []
        words += ["-d"] if self.search_delegate else []
        words += ["-k", str(self.delegate_step)] if self.delegate_step is not None else []
        return words
