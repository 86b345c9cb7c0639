"""The fixture of tests on an emulated arm64 board: a plug-in, as `sshd_fixtures` is."""

import pytest
from arm64_board import running_arm64_board


@pytest.fixture(scope="session")
def arm64_board(tmp_path_factory):
    """One board for all tests that leave it as it is."""
    with running_arm64_board(tmp_path_factory.mktemp("arm64")) as board:
        yield board
