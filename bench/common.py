"""What the newer benchmarks share: how a spread is printed, and where results go."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"


def spread(values: Sequence[float]) -> str:
    """Return the median, the 10th and 90th percentile and how many there are."""
    low, median, high = np.percentile(values, (10, 50, 90))
    return f"{median:.4g} ({low:.4g} to {high:.4g}, n={len(values)})"


def told(*command: str) -> dict[str, Any]:
    """Return the JSON that an `ehdnas` command prints, run in this process and folder.

    A budget that is not met is no failure; other exit codes end the benchmark.
    """
    from ehdnas.cli import main  # the command line is heavy, and most benchmarks do without

    printed = StringIO()
    with redirect_stdout(printed):
        code = main([*command, "--json"])
    if code not in (0, 3) or not printed.getvalue():
        sys.exit(f"ehdnas {' '.join(command)}: exit code {code}")
    return json.loads(printed.getvalue())


def write_result(name: str, figures: dict[str, Any]) -> Path:
    """Write a benchmark's figures, with how and where they came about, to bench/results; return the path."""
    path = RESULTS / f"{name}.json"
    packages = ("ehdnas", "ai-edge-litert", "onnxruntime", "paramiko")
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *map(_nobodys, sys.argv[1:])]),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {package: found for package in packages if (found := _version(package))},
    }
    path.write_text(json.dumps({**about, **figures}, indent=1) + "\n")
    print(f"written: {path.relative_to(ROOT)}")
    return path


def _version(package: str) -> str | None:
    """Return the version of a package; None where it is not there, as on a machine that only computes."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _nobodys(argument: str) -> str:
    """Return an argument without the folders of this machine."""
    return "DIR" if Path(argument).is_absolute() else argument


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
