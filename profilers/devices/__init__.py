"""The devices that come with the tool: one TOML file each, and no code."""

from __future__ import annotations

from pathlib import Path


def builtin_devices() -> dict[str, Path]:
    """Return the description of every built-in device, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}
