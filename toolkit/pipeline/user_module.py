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

import torch
from torch import nn

from ehdnas.core.errors import DataError, UsageError
from ehdnas.core.files import sha256
from ehdnas.core.images.dataset import Dataset


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


def require_fit(network: nn.Module, reference: str, dataset: Dataset) -> None:
    """Return if a network takes the data's images and tells their classes apart.

    Raises:
        UsageError: it does not; the message says what it makes of one image.
    """
    out = _answer(network, reference, dataset, images=1)
    # What is no tensor at all, the export says.
    if isinstance(out, torch.Tensor) and tuple(out.shape) != (1, dataset.num_classes):
        raise UsageError(
            f"{reference} makes {'x'.join(map(str, out.shape))} of one image and '{dataset.source}' has "
            f"{dataset.num_classes} classes; make it give as many, or give its own --data"
        )


def require_trainable(network: nn.Module, reference: str, dataset: Dataset) -> None:
    """Return if a network can be trained on the data; its running statistics are other ones afterwards.

    Raises:
        UsageError: as `require_fit`; or it has no weights, or does not return the logits alone.
    """
    require_fit(network, reference, dataset)
    if not any(one.requires_grad for one in network.parameters()):
        raise UsageError(
            f"{reference} has no weights that can be trained; leave their requires_grad as it is"
        )
    out = _answer(network.train(), reference, dataset, images=2)
    if not isinstance(out, torch.Tensor):
        raise UsageError(
            f"{reference} returns a {type(out).__name__} while it is trained; it must return the logits alone"
        )
    network.eval()


def _answer(network: nn.Module, reference: str, dataset: Dataset, images: int) -> Any:
    first = next(network.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            return network(torch.zeros(images, *dataset.image_shape, device=first.device))
    except Exception as error:
        size, reason = "x".join(map(str, dataset.image_shape)), f"{type(error).__name__}: {error}"
        raise UsageError(
            f"{reference} does not take the images of '{dataset.source}', {size} ({reason[:200]}); give its "
            "own data with --data and --image-size"
        ) from error


def short_name(reference: str) -> str:
    """Return a reference without the folder of its file, as files and reports tell it."""
    home, _, function = reference.rpartition(":")
    return f"{Path(home).name}:{function}" if home.endswith(".py") else reference


def source_sha256(reference: str) -> str:
    """Return the SHA-256 of the file a reference names, empty for a module that is imported by its name."""
    path = Path(reference.rpartition(":")[0])
    return sha256(path) if path.suffix == ".py" and path.is_file() else ""


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
