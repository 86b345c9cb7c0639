"""What the pages hold besides the files: the commands' own help, and a package to read docstrings in."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "build" / "docs" / "ehdnas"
PARTS = ("search", "exporters", "profilers", "core")
REPOSITORY_FILE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(?:bench|core|examples|exporters|profilers|search|toolkit)/[\w./-]*\)"
)


def on_startup(**_: Any) -> None:
    """Lay the five folders out as the one package that they are installed as."""
    PACKAGE.mkdir(parents=True, exist_ok=True)
    for source in (*sorted((ROOT / "toolkit").iterdir()), *(ROOT / part for part in PARTS)):
        link = PACKAGE / source.name
        if not link.is_symlink():
            link.symlink_to(source)


def on_files(files: Files, config: Any) -> Files:
    """Add the page of commands."""
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name files of the repository that a page links to: they are not among the pages."""
    return REPOSITORY_FILE.sub(r"\1", markdown)


def commands() -> str:
    """Return the help of every command, as Markdown."""
    os.environ["COLUMNS"] = "100"
    import typer.main

    from ehdnas.cli.app import app

    group = typer.main.get_command(app)
    lines = ["# Commands", "", "What `ehdnas COMMAND --help` prints.", ""]
    for path, command in _each(group, ("ehdnas",)):
        lines += [f"## {' '.join(path)}", "", "```text", _help(path, command).strip(), "```", ""]
    return "\n".join(lines)


def _each(command: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", {})
    own = [] if inner and len(path) == 1 else [(path, command)]
    return own + [found for name, one in inner.items() for found in _each(one, (*path, name))]


def _help(path: tuple[str, ...], command: Any) -> str:
    text: str = command.get_help(command.context_class(command, info_name=" ".join(path)))
    return text
