"""Another machine to run things on: files there and back, commands with a limit, nothing left behind.

with open_transport("nvidia@jetson") as there:
    model = there.put(Path("model.onnx"), "model.onnx")
    done = there.run(["trtexec", f"--onnx={model}", "--saveEngine=model.engine"], timeout_s=600)
    there.get("model.engine", Path("model.engine"))
"""

from ehdnas.core.remote.adb import AdbTransport
from ehdnas.core.remote.base import (
    CommandTimeoutError,
    Completed,
    ConnectionLostError,
    HostKeyError,
    Transport,
)
from ehdnas.core.remote.local import LocalTransport
from ehdnas.core.remote.process import ProcessTransport
from ehdnas.core.remote.ssh import SshTransport
from ehdnas.core.remote.ssh_config import SshOptions

__all__ = [
    "AdbTransport",
    "CommandTimeoutError",
    "Completed",
    "ConnectionLostError",
    "HostKeyError",
    "LocalTransport",
    "ProcessTransport",
    "SshOptions",
    "SshTransport",
    "Transport",
    "open_transport",
]


def open_transport(address: str, options: SshOptions | None = None) -> Transport:
    """Return a transport to `address`; nothing is reached before its first use.

    '' or 'local' is this machine, `adb:SERIAL` an Android device, `adb:` the only one, and all else
    `[user@]host[:port]` over SSH, with these `options`; a host may be an alias of ~/.ssh/config.

    Raises:
        UsageError: the address cannot be one.
    """
    if address in ("", "local"):
        return LocalTransport()
    if address.startswith("adb:"):
        return AdbTransport(address.removeprefix("adb:"))
    return SshTransport(address, options)
