"""The fixtures of tests over SSH: a plug-in, apart from the helpers so that pytest imports it first."""

from contextlib import contextmanager

import pytest
from sshd import running_sshd


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """One sshd for all tests that leave it as it is."""
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def own_sshd(tmp_path):
    """A function that starts an sshd with settings of the test's own, as a context."""

    @contextmanager
    def start(*settings, **environment):
        folder = tmp_path / "own"
        folder.mkdir()
        with running_sshd(folder, *settings, **environment) as server:
            yield server

    return start
