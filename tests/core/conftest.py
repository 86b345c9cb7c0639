"""What the tests of the network graph share: the well-known networks of bench/zoo.py."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def zoo():
    """The module bench/zoo.py, which is no part of the package."""
    path = Path(__file__).resolve().parents[2] / "bench" / "zoo.py"
    spec = importlib.util.spec_from_file_location("zoo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
