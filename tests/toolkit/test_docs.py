"""What the README and the pages tell people to type: known to the command line, and where it can be, run."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer.main

from ehdnas.cli.app import app
from ehdnas.profilers.devices import builtin_devices

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
PLACEHOLDERS = {"..."}


def commands(page):
    """Return the lines of a page that call ehdnas, as arguments and the comment after them."""
    found = []
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words, _, comment = line.partition(" #")
            if words.startswith("ehdnas "):
                found.append((shlex.split(words)[1:], comment))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_known_with_its_flags(page):
    root = typer.main.get_command(app)
    for arguments, _ in commands(page):
        command, words = root, [word for word in arguments if word not in PLACEHOLDERS]
        while words and words[0] in getattr(command, "commands", {}):
            command, words = command.commands[words[0]], words[1:]
        assert command is not root, f"{page.name}: no command in {arguments}"
        command.make_context("ehdnas", list(words), resilient_parsing=True)  # raises for an unknown flag


def test_there_are_commands_to_know():
    assert len([one for page in PAGES for one in commands(page)]) > 80


def test_the_tutorials_say_what_needs_a_board():
    for page in sorted((ROOT / "docs" / "tutorials").glob("*.md")):
        needing = [comment for _, comment in commands(page) if "needs a" in comment or "needs the" in comment]
        assert bool(needing) == (page.stem != "fpga"), page.name


@pytest.mark.slow
def test_the_fpga_tutorial_runs_from_top_to_bottom(tiny, ehdnas, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tiny / "config"))
    described = builtin_devices()["dpu-b4096"].read_text()
    Path("mine.toml").write_text(re.sub(r"^name = .*$", 'name = "mine"', described, flags=re.MULTILINE))
    rows = ["model,latency_ms"]
    for name in ("DARTS_V1", "DARTS_V2", "EHDNAS_GENERIC"):
        simulated = json.loads(ehdnas("simulate", name, "--device", "dpu-b4096", "--json").out)
        rows.append(f"{name},{1.1 * simulated['latency_ms']}")
    Path("measured.csv").write_text("\n".join(rows) + "\n")
    for arguments, _ in commands(ROOT / "docs" / "tutorials" / "fpga.md"):
        result = ehdnas(*arguments)
        assert result.code == 0, f"ehdnas {shlex.join(map(str, arguments))}: {result.err}"


def test_the_example_in_python_is_the_whole_loop(tiny):
    from ehdnas.settings import load_settings

    example = runpy.run_path(str(ROOT / "examples" / "loop.py"))
    settings = load_settings({"device": "ehdnas-generic", "budget": "0.9x"}, tiny).settings
    verdict, genotype, accuracy = example["best_network"](settings, tiny)
    assert verdict == "PASS" and len(genotype) == 28 and 0 < accuracy <= 1
    assert list((tiny / ".ehdnas" / "runs").glob("*/export/model.tflite.py"))


def test_the_example_of_predictions_is_near_what_the_device_does(tiny):
    from ehdnas.settings import load_settings

    example = runpy.run_path(str(ROOT / "examples" / "predicted.py"))
    settings = load_settings({"device": "ehdnas-generic", "samples": 60}, tiny).settings
    rows = example["predicted_and_true"](settings, tiny, 10)
    assert len(rows) == 10
    assert all(abs(predicted / true - 1) < 0.3 for _, predicted, true in rows)
