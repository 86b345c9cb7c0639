"""What measuring costs besides measuring: connecting, a job's own overhead, and the upload of a model.

    python bench/profile_overhead.py [--jobs 15]

A board on loopback (a real sshd, started for this) and this machine without one time the same model in
turn. A job is `SshProfiler.measure` with one process. Its overhead is its wall time without what the agent
says it spent itself: the start of Python, the import of the runtime, loading, warming up and timing, which
are printed apart. Uploads are of 5 MB of random bytes, checked by SHA-256 over there, each under a new name.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, spread, write_result

sys.path.insert(0, str(ROOT / "tests" / "support"))
from sshd import running_sshd

from ehdnas.core.device import Device
from ehdnas.core.remote import SshOptions, SshTransport
from ehdnas.profilers.board.profiler import BoardProfiler
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.profilers.local import LocalProfiler
from ehdnas.profilers.protocol import Protocol

PROTOCOL = Protocol("bench", warmup_runs=5, warmup_s=0.1, runs=50, min_s=0.2, max_s=10, processes=1)
INSIDE = ("start_ms", "import_ms", "load_ms", "first_ms", "warmup_ms", "timing_ms")
UPLOAD_BYTES = 5_000_000


class BenchProfiler(BoardProfiler):
    """The board on loopback, reached with the configuration of the sshd that was started."""

    config: Path

    def open(self):
        return SshTransport("board", SshOptions(config=self.config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=15)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder, running_sshd(Path(folder)) as sshd:
        BenchProfiler.config = sshd.config
        device = Device(
            name="board", kind="ssh", title="loopback", runtime="litert", host="board",
            options={"python": sys.executable},
        )  # fmt: skip
        model = Path(folder) / "smoke.tflite"
        model.write_bytes(smoke_model(".tflite"))
        with (
            BenchProfiler(device) as board,
            LocalProfiler(device.model_copy(update={"kind": "local"})) as here,
        ):
            rows = {"first job, connecting included (ms)": [timed_job(board, model)["wall"]]}
            timed_job(here, model)
            for _ in range(jobs):
                for name, profiler in (("ssh", board), ("local", here)):
                    for key, value in timed_job(profiler, model).items():
                        rows.setdefault(f"{name}: {key} (ms)", []).append(value)
        with sshd.transport() as there:
            there.run(["true"], 10)
            rows["upload of 5 MB (ms)"] = [timed_upload(there, Path(folder), n) for n in range(jobs)]
    for name, values in rows.items():
        print(f"{name:<44} {spread(values)}")
    write_result("profile_overhead", {"jobs": jobs, "rows": rows})


def timed_job(profiler: BoardProfiler, model: Path) -> dict[str, float]:
    start = time.perf_counter()
    measurement = profiler.measure(model, PROTOCOL)
    wall = 1000 * (time.perf_counter() - start)
    overheads = measurement.passport["overheads"]
    inside = {key: overheads[key] for key in INSIDE if overheads.get(key) is not None}
    parts = {key.removesuffix("_ms"): value for key, value in inside.items()}
    return {"wall": wall, **parts, "overhead": wall - sum(inside.values())}


def timed_upload(there, folder: Path, number: int) -> float:
    source = folder / "upload.bin"
    source.write_bytes(os.urandom(UPLOAD_BYTES))
    start = time.perf_counter()
    there.put(source, f"upload{number}.bin")
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
