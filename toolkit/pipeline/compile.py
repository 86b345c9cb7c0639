"""Files that exist already, checked and compiled for the Edge TPU; nothing here loads torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ehdnas.core.errors import NotCompiledError
from ehdnas.core.export_options import ExportOptions
from ehdnas.exporters.edgetpu.compiler import CompilerOptions, find_compiler
from ehdnas.exporters.edgetpu.rules import StaticReport, check_file
from ehdnas.exporters.tflite.file import read_tflite
from ehdnas.pipeline.reporter import Reporter


def check_tflite(path: Path) -> StaticReport:
    """Return what of a TensorFlow Lite file the Edge TPU would run, by the static check.

    Raises:
        DataError: the file is absent or damaged.
    """
    return check_file(read_tflite(path))


def compile_files(
    files: list[Path], out: Path | None, options: ExportOptions, reporter: Reporter
) -> list[dict[str, Any]]:
    """Compile files together, so that they share the Edge TPU's memory; return what came of each.

    Args:
        out: where the compiled files go; beside the first by default.

    Raises:
        NotCompiledError: there is no compiler.
        ExportError: the compiler refuses a file.
        DataError: a file is absent or damaged.
    """
    for path in files:
        report = check_tflite(path)
        if report.on_cpu:
            reporter.warn(
                f"compile: {path.name}: by the static check {report.on_cpu} of {len(report.operators)} "
                "operators stay on the CPU; see `ehdnas check`"
            )
    compiler = find_compiler(CompilerOptions.of(options))
    if compiler is None:
        raise NotCompiledError(
            "nothing is compiled: no edgetpu_compiler on PATH; install the vendor's package (x86-64 Linux), "
            "or name a container or host: --compiler docker:IMAGE or ssh:USER@HOST"
        )
    return [
        {"model": str(one.model), "files": [str(path) for path in one.files], **one.compilation.model_dump()}
        for one in compiler.compile(files, out or files[0].parent)
    ]
