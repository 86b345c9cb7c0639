"""Genotypes of the NAS-Bench-201 space: the benchmark's own strings, six digits, JSON.

A cell has four nodes, and an edge from each to every later one. The six slots are its edges in the order
of the benchmark's strings: 0→1, 0→2, 1→2, 0→3, 1→3, 2→3. A slot's digit is the number of its operation in
`CHOICES`.
"""

from __future__ import annotations

from typing import Any

from ehdnas.core.errors import UsageError
from ehdnas.core.text import nearest
from ehdnas.search.spaces.base import CellGraph
from ehdnas.search.spaces.reading import read_json, require_short

CHOICES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NODES = 4
EDGES = tuple((source, target) for target in range(1, NODES) for source in range(target))
SLOTS = len(EDGES)
GRAPH = CellGraph(
    nodes=NODES,
    inputs=(0,),
    outputs=(NODES - 1,),
    edges=tuple((source, target, slot) for slot, (source, target) in enumerate(EDGES)),
    absent=frozenset({CHOICES.index("none")}),
    identity=frozenset({CHOICES.index("skip_connect")}),
)
PUBLISHED = {
    # The block of ResNet: `ResNet_CODE` in the authors' code.
    "RESNET": "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|",
    # The highest mean test accuracy after 200 epochs on CIFAR-10, 94.37 %; on CIFAR-100, 73.51 %; and on
    # ImageNet-16-120, 47.31 %: entries 6111, 9930 and 857 of the benchmark.
    "BEST_CIFAR10": (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    ),
    "BEST_CIFAR100": (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    ),
    "BEST_IMAGENET16": (
        "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    ),
}
"""Networks of the paper and its benchmark, by name."""

_EXAMPLE = (
    "a name such as RESNET, 6 digits, |nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|"
    'skip_connect~2| or {"nodes": [[["nor_conv_3x3", 0]], ...]}'
)

Choices = tuple[int, ...]


def parse(text: str) -> Choices:
    """Return the 6 choices a genotype describes, whether or not they join the cell's input to its output.

    Raises:
        UsageError: it is no genotype of the space; the message says what is wrong with it.
    """
    text = require_short(text)
    text = PUBLISHED.get(text, text)
    if text.isdecimal():
        return _from_digits(text)
    if text.startswith("{"):
        return _from_json(text)
    if text.startswith("|"):
        return _from_nodes([_edges(node, number) for number, node in enumerate(text.split("+"), start=1)])
    close = nearest(text, PUBLISHED)
    hint = close.rstrip("?") if close.startswith("; did") else ""
    raise UsageError(f"'{text[:60]}' is not a NAS-Bench-201 genotype{hint}; give {_EXAMPLE}")


def to_text(choices: Choices) -> str:
    """Return the string that the benchmark knows an architecture by."""
    nodes = ("|".join(f"{operation}~{source}" for operation, source in node) for node in to_nodes(choices))
    return "+".join(f"|{node}|" for node in nodes)


def to_nodes(choices: Choices) -> list[list[list[Any]]]:
    """Return what nodes 1, 2 and 3 take: an [operation, source] pair of every node before them."""
    return [
        [[CHOICES[choices[slot]], source] for slot, (source, target) in enumerate(EDGES) if target == node]
        for node in range(1, NODES)
    ]


def is_connected(choices: Choices) -> bool:
    """Return whether a path of edges, none of them `none`, joins the cell's input to its output."""
    return bool(GRAPH.live(choices))


def _from_digits(text: str) -> Choices:
    if len(text) != SLOTS:
        raise UsageError(f"genotype of {len(text)} digits: a NAS-Bench-201 genotype has {SLOTS}")
    choices = tuple(int(digit) for digit in text)
    for slot, choice in enumerate(choices):
        if choice >= len(CHOICES):
            raise UsageError(
                f"genotype: choice {choice} in slot {slot}; choices go from 0 to {len(CHOICES) - 1}"
            )
    return choices


def _from_json(text: str) -> Choices:
    nodes = read_json(text).get("nodes")
    if not isinstance(nodes, list):
        raise UsageError("genotype: no list under the key 'nodes'; it needs one entry for each of 3 nodes")
    return _from_nodes(nodes)


def _edges(text: str, node: int) -> list[Any]:
    """Return the [operation, source] pairs of one node's part of a string, such as `|none~0|none~1|`."""
    if len(text) < 2 or text[0] != "|" or text[-1] != "|":
        raise UsageError(f"genotype: node {node} is '{text[:40]}'; write it |operation~source|...|")
    pairs: list[Any] = []
    for edge in text[1:-1].split("|"):
        operation, tilde, source = edge.partition("~")
        if not tilde or not source.isdecimal():
            raise UsageError(f"genotype: '{edge[:40]}' in node {node} is no operation~source")
        pairs.append([operation, int(source)])
    return pairs


def _from_nodes(nodes: list[Any]) -> Choices:
    if len(nodes) != NODES - 1:
        raise UsageError(
            f"genotype of {len(nodes)} nodes: a NAS-Bench-201 cell has {NODES - 1} after its input"
        )
    choices: list[int] = []
    for node, pairs in enumerate(nodes, start=1):
        if not isinstance(pairs, list) or len(pairs) != node:
            count = len(pairs) if isinstance(pairs, list) else 0
            raise UsageError(f"genotype: node {node} takes {count} edges; it needs {node}, `none` included")
        choices += [_choice(pair, node, source) for source, pair in enumerate(pairs)]
    return tuple(choices)


def _choice(pair: Any, node: int, wanted: int) -> int:
    if not isinstance(pair, list) or len(pair) != 2:
        raise UsageError(f"genotype: {str(pair)[:40]} in node {node} is no [operation, source] pair")
    operation, source = pair
    if operation not in CHOICES:
        raise UsageError(
            f"genotype: unknown operation '{str(operation)[:40]}' in node {node}"
            f"{nearest(str(operation), CHOICES)}"
        )
    if source != wanted or isinstance(source, bool):
        raise UsageError(
            f"genotype: edge {wanted} of node {node} comes from {str(source)[:40]}; "
            f"it must come from {wanted}"
        )
    return CHOICES.index(operation)
