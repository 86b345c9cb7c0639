"""Boards for the command line: a real sshd on loopback, in a home folder whose ~/.ssh/config names it."""

import sys

import pytest

from ehdnas.profilers.protocol import Protocol

# As the quick protocol, but over in a moment: what is tested is the way there and back.
BRIEF = Protocol("quick", warmup_runs=1, warmup_s=0, runs=5, min_s=0.01, max_s=10, processes=1)


@pytest.fixture
def home(tmp_path_factory, monkeypatch):
    """A home folder of the test's own."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def known_board(home, ehdnas):
    """A function that makes an sshd a device of the command line: known_board(sshd, "board", "litert")."""

    def add(sshd, name="board", runtime="litert", *settings):
        config = home / ".ssh" / "config"
        # Everything under the one name: several boards have keys of their own.
        text = sshd.config.read_text().replace("Host board", f"Host {name}-host").replace("Host *\n", "")
        with config.open("a") as stream:
            stream.write(text)
        wanted = [f"host={name}-host", f"runtime={runtime}", f"options.python={sys.executable}", *settings]
        added = ehdnas("devices", "add", name, "--from", "linux", *wanted)
        assert added.code == 0, added.err
        return name

    return add


@pytest.fixture
def brief(monkeypatch):
    """Make the quick protocol a moment's, in this process."""
    from ehdnas.pipeline import measure, meter, profile

    protocols = {"standard": BRIEF, "quick": BRIEF}
    for module in (meter, measure, profile):
        monkeypatch.setattr(module, "PROTOCOLS", protocols)
