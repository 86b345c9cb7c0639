"""The way to a machine: straight, through jump hosts, or through a ProxyCommand."""

from __future__ import annotations

import shlex
import socket
import subprocess
from typing import Any

from ehdnas.core.errors import DeviceError
from ehdnas.core.remote.ssh_config import SshOptions, Target, resolve
from ehdnas.core.remote.ssh_connection import Connection

_MAX_JUMPS = 8
_SEND_BUFFER_BYTES = 2**18  # what waits here delays a keepalive on a slow link


def connect(address: str, options: SshOptions) -> Connection:
    """Return a connection to `address`, every machine on the way verified like the last.

    Raises:
        UsageError: the address is malformed.
        DeviceError: a machine could not be reached, verified or logged in to.
    """
    return _connect(resolve(address, options), options, None, 0)


def _connect(target: Target, options: SshOptions, jumps: tuple[str, ...] | None, depth: int) -> Connection:
    """Connect through `jumps`, or the target's own: in `ProxyJump a,b`, b is reached through a."""
    if depth > _MAX_JUMPS:
        raise DeviceError(f"{target.where}: its ProxyJump leads through itself; mend ~/.ssh/config")
    jumps = target.jumps if jumps is None else jumps
    beneath = None
    if jumps:
        beneath = _connect(resolve(jumps[-1], options), options, jumps[:-1] or None, depth + 1)
    elif target.proxy_command and not options.allow_proxy_command:
        raise DeviceError(
            f"{target.where} is reached by a ProxyCommand, which runs a program on this machine: "
            f"allow it with allow_proxy_command, or use ProxyJump in ~/.ssh/config"
        )
    connection = Connection(target, options, beneath)

    def open_socket(limit_s: float) -> Any:
        if beneath is not None:
            far = (target.host, target.port)
            return beneath.transport.open_channel("direct-tcpip", far, ("127.0.0.1", 0), timeout=limit_s)
        if target.proxy_command:
            return _command_socket(connection)
        return _tcp_socket(target, limit_s)

    try:
        connection.start(open_socket)
    except BaseException:
        connection.close()
        raise
    return connection


def _command_socket(connection: Connection) -> socket.socket:
    """Start the ProxyCommand and return our end of a socket pair to it.

    paramiko's own ProxyCommand never notices that the program has ended.
    """
    command = connection.target.proxy_command
    near, far = socket.socketpair()
    try:
        with far:
            end = far.fileno()
            process = subprocess.Popen(shlex.split(command), stdin=end, stdout=end, stderr=subprocess.DEVNULL)
    except (OSError, ValueError) as error:
        near.close()
        raise DeviceError(f"cannot start ProxyCommand {command}: {error}; mend ~/.ssh/config") from error
    connection.own(process)
    return near


def _tcp_socket(target: Target, limit_s: float) -> socket.socket:
    """Return a connected socket that sends small packets at once; paramiko's own would wait 40 ms on each."""
    sock = socket.create_connection((target.host, target.port), limit_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return sock
