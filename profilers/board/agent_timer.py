"""The agent on a machine: one Python file, copied there, and the Python that runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ehdnas.core.device import Device
from ehdnas.core.errors import DeviceSetupError, MeasurementError
from ehdnas.core.remote import CommandTimeoutError, Transport
from ehdnas.profilers import agent
from ehdnas.profilers.board.options import BoardOptions
from ehdnas.profilers.board.reply import Output, Reply, read_answer, read_reply
from ehdnas.profilers.board.runtime import Runtime, package_for
from ehdnas.profilers.board.timer import SLACK_S, Timer, limit_s, output_of
from ehdnas.profilers.protocol import Protocol

_EDGETPU_LIBRARY = "libedgetpu.so.1"
_BITS = "import struct; print(8 * struct.calcsize('P'))"
# $1 is the device's own choice, $2 the folder of an installed runtime; both may start at the home folder.
_FIND_PYTHON = """
at_home() { case "$1" in "~/"*) echo "$HOME/${1#??}";; /*) echo "$1";; *) echo "$2$1";; esac; };
if test -n "$1"; then command -v "$(at_home "$1" "")"; exit; fi;
for one in "$(at_home "$2" "$HOME/")/bin/python" python3 python; do command -v "$one" && exit; done; exit 1
"""


class AgentTimer(Timer):
    """Runs the agent, each time in a fresh process.

    Args:
        python: the program and flags that run the agent; looked for over there when empty.
    """

    def __init__(
        self, there: Transport, device: Device, options: BoardOptions, runtime: Runtime, python: Sequence[str]
    ) -> None:
        self._there, self._device, self._options, self._runtime = there, device, options, runtime
        self._python = list(python) or [*self._find_python(), "-B"]
        self._bits_are_right = not options.system_bits
        self._agent = there.put(Path(agent.__file__), "agent.py")

    def prepare(self, model: str, digest: str, subject: str) -> None:
        """Refuse a system of other than the wanted number of bits; see `Timer.prepare`."""
        if not self._bits_are_right:
            self._require_bits()
            self._bits_are_right = True

    def time(self, model: str, subject: str, protocol: Protocol) -> Reply:
        """Return what one process of the agent gives; see `Timer.time`."""
        output = self._run([model, *agent_flags(protocol)], limit_s(protocol), subject)
        with self._install_hint(model):
            return read_reply(output, subject)

    def probe(self) -> dict[str, Any]:
        """Return the agent's report on the machine; see `Timer.probe`."""
        name = self._device.name
        return read_answer(self._run([self._runtime.suffix, "--probe"], SLACK_S, name), name)

    def outputs(self, model: str, inputs: str, output: str, subject: str, timeout_s: float) -> dict[str, Any]:
        """Run the items of the array file `inputs` one by one and write what the model gives to `output`.

        Both are .npy files of our folder there. Raises as `time` does, and UsageError where they do not fit.
        """
        arguments = [model, "--input", inputs, "--output", output]
        with self._install_hint(model):
            return read_answer(self._run(arguments, timeout_s, subject), subject)

    def _run(self, arguments: list[str], timeout_s: float, subject: str) -> Output:
        try:
            return output_of(
                self._there.run([*self._python, self._agent, *arguments, *self._flags()], timeout_s)
            )
        except CommandTimeoutError as error:
            raise MeasurementError(
                f"{subject}: not done after {timeout_s:.0f} s and stopped; it is too slow to measure there"
            ) from error

    @contextmanager
    def _install_hint(self, model: str) -> Iterator[None]:
        """Say what sets up a device that lacks the runtime of a file, or its delegate."""
        try:
            yield
        except DeviceSetupError as error:
            name, package = self._device.name, package_for(Path(model).suffix, self._runtime)
            if "cannot load delegate" in str(error):
                mend = f"ehdnas doctor --device {name} says what it needs"
            elif self._device.kind == "local":
                mend = f"pip install {package}"
            else:
                mend = f"ehdnas devices install {name}"
                if self._options.python:
                    mend += f" && ehdnas devices set {name} options.python="
            raise DeviceSetupError(f"{error}; {mend}") from error

    def _require_bits(self) -> None:
        wanted = self._options.system_bits
        found = self._there.run([*self._python, "-c", _BITS], 60).stdout.decode(errors="replace").strip()
        if found != str(wanted):
            raise DeviceSetupError(
                f"device '{self._device.name}' runs a {found or 'unknown'}-bit system, for which there are "
                f"no runtimes; put its {wanted}-bit system on the card"
            )

    def _flags(self) -> list[str]:
        options = self._options
        flags = ["--threads", str(self._device.threads)]
        delegate = options.delegate or (_EDGETPU_LIBRARY if self._runtime.name == "edgetpu" else "")
        if delegate:
            flags += ["--delegate", delegate]
        for key, value in options.delegate_options.items():
            flags += ["--delegate-option", f"{key}={value}"]
        if options.cpus:
            flags += ["--cpus", ",".join(map(str, options.cpus))]
        if options.power_rail:
            flags += ["--power-rail", options.power_rail]
        return flags

    def _find_python(self) -> list[str]:
        found = self._there.run(
            ["sh", "-c", " ".join(_FIND_PYTHON.split()), "sh", self._options.python, self._options.folder], 30
        )
        path = found.stdout.decode(errors="replace").strip()
        if found.code != 0 or not path:
            wanted = self._options.python or "python3"
            raise DeviceSetupError(
                f"device '{self._device.name}' has no {wanted}; install it there (sudo apt install python3), "
                f"or name one: ehdnas devices set {self._device.name} options.python=/path/to/python3"
            )
        return [path]


def agent_flags(protocol: Protocol) -> list[str]:
    """Return a protocol as flags of the agent's command line."""
    flags = {
        "--warmup-runs": protocol.warmup_runs,
        "--warmup-s": protocol.warmup_s,
        "--runs": protocol.runs,
        "--min-s": protocol.min_s,
        "--max-s": protocol.max_s,
    }
    if protocol.window_s:
        flags["--window-s"] = protocol.window_s
    return [word for flag, value in flags.items() for word in (flag, str(value))]
