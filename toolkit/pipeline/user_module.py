"""The user's own nn.Module, named as MODULE:FUNCTION."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ehdnas.core.errors import DataError, UsageError


def is_module_reference(model: str) -> bool:
    """Return whether a text is MODULE:FUNCTION or FILE.py:FUNCTION."""
    module, colon, name = model.rpartition(":")
    return (
        bool(colon)
        and name.isidentifier()
        and (module.endswith(".py") or module.replace(".", "_").isidentifier())
    )


def load_module(reference: str) -> nn.Module:
    """Return what the user's function makes; like any import, this runs the code of the module it is in."""
    home, _, name = reference.rpartition(":")
    make: Callable[[], Any] | None = getattr(_import(home), name, None)
    if make is None:
        raise UsageError(f"'{home}' has no '{name}'")
    try:
        # What it prints is not the command's result.
        with redirect_stdout(sys.stderr):
            network = make() if callable(make) and not isinstance(make, nn.Module) else make
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{reference} raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{reference} gave a {type(network).__name__}, not an nn.Module")
    return network.eval()


def _import(home: str) -> ModuleType:
    if not home.endswith(".py"):
        return _guarded(home, Path.cwd(), lambda: importlib.import_module(home))
    path = Path(home)
    if not path.is_file():
        raise DataError(f"no such file: {home}")
    return _guarded(home, path.resolve().parent, lambda: _execute(path))


def _guarded(home: str, beside: Path, load: Callable[[], ModuleType]) -> ModuleType:
    sys.path.insert(0, str(beside))  # what lies beside it can be imported, as with `python`
    try:
        with redirect_stdout(sys.stderr):
            return load()
    except (Exception, SystemExit) as error:
        raise DataError(f"cannot import {home}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(beside))


def _execute(path: Path) -> ModuleType:
    """Return the module of a file, under a name that no installed module has."""
    name = f"_of_the_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
