"""Another machine to run things on: files there and back, commands with a limit, nothing left behind.

with open_transport("nvidia@jetson") as there:
    model = there.put(Path("model.onnx"), "model.onnx")
    done = there.run(["trtexec", f"--onnx={model}", "--saveEngine=model.engine"], timeout_s=600)
    there.get("model.engine", Path("model.engine"))
"""

from ehdnas.core.remote.base import CommandTimeoutError, Completed, ConnectionLostError, Transport
from ehdnas.core.remote.local import LocalTransport
from ehdnas.core.remote.ssh import SshTransport
from ehdnas.core.remote.ssh_config import SshOptions

__all__ = [
    "CommandTimeoutError",
    "Completed",
    "ConnectionLostError",
    "LocalTransport",
    "SshOptions",
    "SshTransport",
    "Transport",
    "open_transport",
]


def open_transport(address: str) -> Transport:
    """Return a transport to `address`: '' or 'local' is this machine, all else `[user@]host[:port]` over SSH.

    A host may be an alias of ~/.ssh/config. Nothing is reached before the first use.

    Raises:
        UsageError: the address cannot be one.
    """
    return LocalTransport() if address in ("", "local") else SshTransport(address)
