"""A verified, logged-in connection that notices when the other end is gone."""

from __future__ import annotations

import contextlib
import logging
import random
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ehdnas.core.remote.base import ConnectionLostError
from ehdnas.core.remote.known_hosts import check_host_key, known_keys
from ehdnas.core.remote.ssh_auth import log_in
from ehdnas.core.remote.ssh_config import SshOptions, Target
from ehdnas.core.remote.ssh_errors import device_errors

if TYPE_CHECKING:
    import paramiko

_TRIES = 4
# paramiko logs tracebacks of what we raise as one line; a logger of our own leaves its others as they are.
_LOGGER = "ehdnas.paramiko"


class Heard:
    """A socket that counts what it receives, so that silence can be told from a quiet program."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.count = 0

    def recv(self, size: int) -> bytes:
        """Receive as the socket does, and count it."""
        data: bytes = self._inner.recv(size)
        self.count += 1
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Connection:
    """A connection to `target` and, beneath it, those to the machines jumped through."""

    def __init__(self, target: Target, options: SshOptions, beneath: Connection | None = None) -> None:
        self.target, self.options = target, options
        self.lost_why = ""
        self.transport: paramiko.Transport
        self._heard: Heard
        self._beneath = beneath
        self._proxies: list[subprocess.Popen[bytes]] = []
        self._ended = threading.Event()

    def start(self, open_socket: Callable[[float], Any]) -> None:
        """Connect, verify the host key and log in, within `options.connect_s`.

        Raises:
            DeviceError: any of these failed.
        """
        deadline = time.monotonic() + self.options.connect_s
        with device_errors(
            f"cannot connect to {self.target.where}", "check the address and that sshd runs there"
        ):
            self._shake_hands(open_socket, deadline)
            check_host_key(self.target, self.transport.get_remote_server_key())
            self.transport.auth_timeout = max(1.0, deadline - time.monotonic())
            log_in(self.transport, self.target)
        for body in (self._ping, self._watch):
            threading.Thread(target=body, daemon=True).start()

    def own(self, process: subprocess.Popen[bytes]) -> None:
        """End `process`, a ProxyCommand, with this connection."""
        self._proxies.append(process)

    def session(self) -> paramiko.Channel:
        """Return a new session channel; its reads and writes wait at most `options.answer_s`."""
        channel = self.transport.open_session(timeout=self.options.answer_s)
        channel.settimeout(self.options.answer_s)
        return channel

    def alive(self, settle_s: float = 0.0) -> bool:
        """Return whether the connection stands, `settle_s` seconds from now: channels fall before it does."""
        deadline = time.monotonic() + settle_s
        while self.transport.is_active() and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.transport.is_active()

    def lost(self, doing: str) -> ConnectionLostError:
        """Return the error for a connection that fell while `doing` was going on."""
        why = self.lost_why or "it was closed over there"
        return ConnectionLostError(
            f"the connection to {self.target.where} was lost during {doing} ({why}); "
            f"check its power and network, then try again"
        )

    def close(self) -> None:
        """Close everything, the connection beneath last; never raises."""
        self._ended.set()
        with contextlib.suppress(Exception):  # a thread of paramiko's may be dying at the same time
            self.transport.close()
        if self._beneath is not None:
            self._beneath.close()
        for process in self._proxies:
            process.kill()
            process.wait()

    def _shake_hands(self, open_socket: Callable[[float], Any], deadline: float) -> None:
        import paramiko

        for attempt in range(1, _TRIES + 1):
            left = max(0.1, deadline - time.monotonic())
            self._heard = Heard(open_socket(left))
            self.transport = _new_transport(self._heard, self.target, left)
            try:
                self.transport.start_client(timeout=left)
                self.transport.get_remote_server_key()  # at its limit, start_client just returns
            except Exception as error:  # the transport's thread hands over whatever it died of
                self.transport.close()
                if time.monotonic() >= deadline - 0.1:
                    limit = f"no answer as an SSH server within {self.options.connect_s:g} s"
                    raise paramiko.SSHException(limit) from error
                # sshd refuses a rush of connections before its banner: come back, not all at once.
                if attempt == _TRIES or "banner" not in str(error):
                    raise paramiko.SSHException(str(error) or "the connection was closed") from error
                pause = random.uniform(0.1, 0.4) * 2**attempt  # noqa: S311 - spread, not a secret
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            else:
                return

    def _ping(self) -> None:
        while not self._ended.wait(self.options.keepalive_s) and self.transport.is_active():
            # Any answer will do, "no such request" too: bytes arrive, and _watch hears them.
            with contextlib.suppress(Exception):
                self.transport.global_request("keepalive@openssh.com", wait=True)

    def _watch(self) -> None:
        # Silence is counted in waits, not by the clock: a stopped process or a sleeping laptop wakes up late.
        step_s = min(1.0, self.options.silence_s / 4)
        heard, silent_s = -1, 0.0
        while not self._ended.wait(step_s) and self.transport.is_active():
            silent_s = silent_s + step_s if heard == self._heard.count else 0.0
            heard = self._heard.count
            if silent_s >= self.options.silence_s:
                self.lost_why = f"nothing came for {self.options.silence_s:g} s"
                self._drop()

    def _drop(self) -> None:
        # From the bottom: closing a channel would wait for the connection that carries it.
        if self._beneath is not None:
            self._beneath._drop()
        with contextlib.suppress(Exception):
            self.transport.close()


def _new_transport(sock: Heard, target: Target, limit_s: float) -> paramiko.Transport:
    import paramiko

    logger = logging.getLogger(_LOGGER)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    transport = paramiko.Transport(sock)  # type: ignore[arg-type]  # any object with a socket's methods
    transport.set_log_channel(_LOGGER)
    # A little more than our own limit, which then is the one to speak.
    transport.banner_timeout = transport.handshake_timeout = limit_s + 1
    # Ask for a kind of key that known_hosts has: another kind would look like a changed key.
    kinds = {key.get_name() for key in known_keys(target)[0]}
    if "ssh-rsa" in kinds:
        kinds |= {"rsa-sha2-512", "rsa-sha2-256"}
    security = transport.get_security_options()
    security.key_types = sorted(security.key_types, key=lambda kind: kind not in kinds)
    return transport
