"""What the tests of broken boards ask of a command that failed, and of the sshd it was talking to."""

import threading
from pathlib import Path

from sshd import running_with, until

LONG = ("--sustained", 0.5)
"""Flags of a measurement that takes long enough for something to happen to it."""


def refused(done, code, *words):
    """It ended with that code, and one line that holds these words, the last."""
    *others, last = done.err.strip().splitlines()
    assert done.code == code, done.err
    assert last.startswith("error: ") and all(word in last for word in words), done.err
    assert not [line for line in others if line.startswith(("error: ", "Traceback"))]
    return last


def agents(sshd):
    """The agents that time something there: pid -> command line."""
    found = running_with(f"TMPDIR={sshd.tmp}")
    return {
        pid: words
        for pid, words in found.items()
        if "--window-s" in words and Path(words.split()[0]).name.startswith("python")
    }


def meanwhile(condition, action):
    """Do something, in a thread, as soon as a condition holds."""
    threading.Thread(target=lambda: until(condition, 30) and action(), daemon=True).start()


def prefer(home, text):
    """Put lines before the others of ~/.ssh/config."""
    config = home / ".ssh" / "config"
    config.write_text(f"{text}\n{config.read_text()}")


def relayed(home, sshd, relay):
    prefer(home, f"Host board-host\n    Port {relay.port}\n    HostKeyAlias [127.0.0.1]:{sshd.port}")
