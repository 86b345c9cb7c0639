"""Genotypes of the DARTS space: JSON, the `Genotype(...)` literal of papers, EH-DNAS's 28 digits.

The canonical order of a cell's 14 edges is node by node, and within node k by input 0..k+1, where
inputs 0 and 1 are the two previous cells and input k+2 is node k. The 28 slots are the normal cell's
edges, then the reduction cell's; a slot's digit is 0 when the edge is not used, else the number of
its operation in `CHOICES`.
"""

from __future__ import annotations

import ast
import json
from functools import cache
from importlib.resources import files
from typing import Any

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.search.spaces.reading import read_json, require_short

CHOICES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NODES = 4
CELLS = ("normal", "reduce")
EDGES = tuple((node, source) for node in range(NODES) for source in range(node + 2))
EDGES_PER_CELL = len(EDGES)
SLOTS = 2 * EDGES_PER_CELL
_EXAMPLE = (
    'a name such as DARTS_V2, 28 digits, {"normal": [["sep_conv_3x3", 0], ...], "reduce": [...]} '
    "or Genotype(...)"
)

Choices = tuple[int, ...]


def edges_of(node: int) -> range:
    """Return the positions, within a cell, of a node's candidate edges."""
    start = node * (node + 3) // 2
    return range(start, start + node + 2)


NODE_SLOTS = tuple(
    tuple(offset + edge for edge in edges_of(node)) for offset in (0, EDGES_PER_CELL) for node in range(NODES)
)
"""By node, those of the normal cell first, the slots of its candidate edges; together all slots in order."""


@cache
def published() -> dict[str, dict[str, Any]]:
    """Return the published genotypes by name, each with its `source`."""
    text = (files(__package__) / "published.json").read_text()
    genotypes: dict[str, dict[str, Any]] = json.loads(text)
    return genotypes


def parse(text: str) -> Choices:
    """Return the 28 choices a genotype describes.

    Raises:
        UsageError: it is no genotype of the space; the message says what is wrong with it.
    """
    text = require_short(text)
    if text in published():
        return from_cells(published()[text])
    if text.isdecimal():  # not isdigit, which takes superscripts for digits
        return _from_digits(text)
    if text.startswith("{"):
        return from_cells(read_json(text))
    if text.startswith("Genotype"):
        return from_cells(_literal(text))
    raise UsageError(f"'{text[:60]}' is not a DARTS genotype{_hint(text)}; give {_EXAMPLE}")


def from_cells(cells: Any) -> Choices:
    """Return the 28 choices of {"normal": [[operation, input] * 8], "reduce": [...]}."""
    missing = [name for name in CELLS if not isinstance(cells, dict) or name not in cells]
    if missing:
        raise UsageError(f"genotype: no key '{missing[0]}'; it needs 'normal' and 'reduce'")
    for name in CELLS:
        concat = cells.get(f"{name}_concat", list(range(2, NODES + 2)))
        if not isinstance(concat, list) or sorted(map(str, concat)) != ["2", "3", "4", "5"]:
            raise UsageError(f"genotype: {name}_concat must be the four nodes 2, 3, 4, 5, not {concat}")
    return (*_from_cell(cells["normal"], "normal"), *_from_cell(cells["reduce"], "reduce"))


def to_cells(choices: Choices) -> dict[str, list[list[Any]]]:
    """Return the JSON form of 28 choices: eight [operation, input] pairs a cell, in canonical order."""
    cells: dict[str, list[list[Any]]] = {}
    for index, name in enumerate(CELLS):
        cell = choices[index * EDGES_PER_CELL : (index + 1) * EDGES_PER_CELL]
        cells[name] = [[CHOICES[op], source] for (_, source), op in zip(EDGES, cell, strict=True) if op]
    return cells


def to_literal(choices: Choices) -> str:
    """Return the `Genotype(...)` literal that papers publish."""
    cells = {name: [tuple(pair) for pair in pairs] for name, pairs in to_cells(choices).items()}
    return (
        f"Genotype(normal={cells['normal']}, normal_concat=range(2, 6), "
        f"reduce={cells['reduce']}, reduce_concat=range(2, 6))"
    )


def check(choices: Choices) -> None:
    """Raise UsageError, saying which rule is broken, unless every node takes exactly two edges."""
    if len(choices) != SLOTS:
        raise UsageError(f"genotype of {len(choices)} choices: the DARTS space has {SLOTS}")
    for slot, choice in enumerate(choices):
        if not 0 <= choice < len(CHOICES):
            raise UsageError(
                f"genotype: choice {choice} in slot {slot}; choices go from 0 to {len(CHOICES) - 1}"
            )
    for index, name in enumerate(CELLS):
        for node in range(NODES):
            used = sum(choices[index * EDGES_PER_CELL + edge] > 0 for edge in edges_of(node))
            if used != 2:
                raise UsageError(f"genotype: node {node} of the {name} cell takes {used} edges; it needs 2")


def _from_digits(text: str) -> Choices:
    if len(text) != SLOTS:
        raise UsageError(f"genotype of {len(text)} digits: a DARTS genotype has {SLOTS}")
    choices = tuple(int(digit) for digit in text)
    check(choices)
    return choices


def _from_cell(pairs: Any, name: str) -> Choices:
    if not isinstance(pairs, list) or len(pairs) != 2 * NODES:
        length = len(pairs) if isinstance(pairs, list) else 0
        raise UsageError(f"genotype: the {name} cell has {length} edges; it needs {2 * NODES}, two a node")
    cell = [0] * EDGES_PER_CELL
    for position, pair in enumerate(pairs):
        node = position // 2
        operation, source = _pair(pair, name, node)
        edge = edges_of(node)[source]
        if cell[edge]:
            raise UsageError(f"genotype: node {node} of the {name} cell takes input {source} twice")
        cell[edge] = CHOICES.index(operation)
    return tuple(cell)


def _pair(pair: Any, name: str, node: int) -> tuple[str, int]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise UsageError(f"genotype: {str(pair)[:40]} in the {name} cell is no [operation, input] pair")
    operation, source = pair
    if operation not in CHOICES[1:]:
        raise UsageError(
            f"genotype: unknown operation '{str(operation)[:40]}' in the {name} cell"
            f"{nearest(str(operation), CHOICES[1:])}"
        )
    if not isinstance(source, int) or isinstance(source, bool) or not 0 <= source < node + 2:
        raise UsageError(
            f"genotype: node {node} of the {name} cell takes input {source}; "
            f"only inputs 0 to {node + 1} come before it"
        )
    return operation, source


def _literal(text: str) -> dict[str, Any]:
    """Read `Genotype(normal=..., ...)` from its syntax tree; nothing is ever evaluated."""
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"genotype: 'Genotype(...)' does not parse ({error})") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise UsageError("genotype: write Genotype(normal=[...], normal_concat=..., reduce=[...], ...)")
    return {keyword.arg or "**": _value(keyword.value) for keyword in call.keywords}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds = [_value(argument) for argument in node.args]
        if len(bounds) == 2 and all(isinstance(bound, int) and abs(bound) < 100 for bound in bounds):
            return list(range(*bounds))
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise UsageError(f"genotype: '{ast.unparse(node)[:40]}' is not a plain value") from error
    return list(value) if isinstance(value, tuple | list) else value


def _hint(text: str) -> str:
    close = nearest(text, published())
    return close.rstrip("?") if close.startswith("; did") else ""
