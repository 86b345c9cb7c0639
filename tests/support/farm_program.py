"""A controller of boards, for tests that kill it: does what is left of a batch, and ends when all is done.

Usage: farm_program.py DATABASE light|real CONFIG..., an ssh configuration for each board. A light job copies
a file there and reads it there, a real one runs the agent.
"""

import sys
import tempfile
from pathlib import Path

from quick_profile import BRIEF

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceError
from ehdnas.core.measurement import Measurement
from ehdnas.core.remote import SshOptions, SshTransport
from ehdnas.profilers.board.profiler import BoardProfiler
from ehdnas.profilers.board.smoke import smoke_model
from ehdnas.profilers.farm import Worker, run_jobs
from ehdnas.profilers.store.jobs import JobTable
from ehdnas.profilers.store.store import Key, MeasurementStore

BATCH = "b"


def key(subject):
    return Key("kind", "space", "shape", subject, "fp32", "p")


class LightWorker(Worker):
    """Goes there and back."""

    def __init__(self, name, config):
        self.name = name
        self._transport = SshTransport("board", SshOptions(config=config))

    def measure(self, key):
        with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
            path = Path(folder) / "file"
            path.write_text(key.subject)
            try:
                self._transport.put(path, "file")
                said = self._transport.run(["cat", "file"], 10).stdout.decode()
            except DeviceError:
                self._transport.close()
                raise
        assert said == key.subject
        return Measurement(
            device="kind", basis="measured", metrics={"latency_ms": 1.0}, passport={"board": self.name}
        )

    def close(self):
        self._transport.close()


class Profiler(BoardProfiler):
    """The usual one, but for the ssh configuration."""

    def __init__(self, name, config):
        super().__init__(
            Device(
                name=name,
                kind="ssh",
                title=name,
                host="board",
                runtime="onnxruntime",
                options={"python": sys.executable},
            )
        )
        self._config = config

    def open(self):
        return SshTransport("board", SshOptions(config=self._config))


class RealWorker(Worker):
    """Has a file timed."""

    def __init__(self, name, config):
        self.name, self._profiler = name, Profiler(name, config)

    def measure(self, key):
        with tempfile.TemporaryDirectory(prefix="ehdnas-") as folder:
            path = Path(folder) / "network.onnx"
            path.write_bytes(smoke_model(".onnx"))
            return self._profiler.measure(path, BRIEF)

    def close(self):
        self._profiler.close()


def main(database, kind, *configs):
    """Go through the batch; return whether a job was given up, which the next command tries again."""
    worker = {"light": LightWorker, "real": RealWorker}[kind]
    with MeasurementStore(Path(database)) as store:
        JobTable(store).reopen(BATCH, failed=True)
    workers = [worker(f"board-{number}", Path(config)) for number, config in enumerate(configs)]
    outcome = run_jobs(
        Path(database), BATCH, workers,
        until=lambda: False, on_done=lambda *_: None, say=lambda text: print(text, file=sys.stderr),
        max_failures=1000, back_off_s=0.05,
    )  # fmt: skip
    assert not outcome.left, outcome
    # Kills as dense as these can look like a job's own doing.
    return bool(outcome.failed)


if __name__ == "__main__":
    if main(*sys.argv[1:]):
        assert not main(*sys.argv[1:]), "a job was given up twice"
