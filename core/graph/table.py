"""The layer table of a torch network."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from ehdnas.core.errors import ExportError
from ehdnas.core.graph.aten_names import IDENTITIES, NORMS
from ehdnas.core.graph.aten_rows import rows, zeros_around
from ehdnas.core.graph.rows import NO_PADS, Folding, Operand, Unmodelled, elementwise
from ehdnas.core.graph.trace import exported, module_path, mutates, operator_name
from ehdnas.core.layers import WEIGHTED, Layer, LayerTable


def layer_table(model: nn.Module, input_shape: tuple[int, int, int]) -> LayerTable:
    """Return what `model` computes in eval mode for one image of `input_shape` (C, H, W).

    Rows are named by module path; an operator of a module's own forward adds its own name to that.
    Reshapes and the like, slices and zero padding are free; so is a batch norm that folds into a layer
    before it, and what depends on weights alone. Only shapes are read: no weight is copied or computed
    with. What no exporter can write may still have a row.

    Raises:
        ExportError: torch.export refuses the model, or a shape in it depends on the data.
        UsageError: `input_shape` is not three positive integers.
    """
    program = exported(model, input_shape)
    parents = {name for name, module in model.named_modules() if any(module.children())}
    return _Reader(program, parents).table()


class _Reader:
    """One pass over a program. What does not depend on the image is a constant, and makes no row."""

    def __init__(self, program: ExportedProgram, parents: set[str]) -> None:
        self._parents = parents
        self._nodes = _live(program)
        read = Counter(source.name for node in self._nodes for source in node.all_input_nodes)
        self._folding = Folding(read)
        self._image = program.graph_signature.user_inputs[0]
        self._operands: dict[str, Operand] = {}
        self._layers: list[Layer] = []
        self._unsupported: list[tuple[str, str]] = []

    def table(self) -> LayerTable:
        for node in self._nodes:
            if node.op != "output":
                self._visit(node)
        return LayerTable(tuple(self._layers), tuple(self._unsupported))

    def _visit(self, node: fx.Node) -> None:
        sources = [self._operands[source.name] for source in node.all_input_nodes]
        constant = node.name != self._image and all(source.constant for source in sources)
        operand = Operand(self._shape(node), constant)
        self._operands[node.name] = operand
        if node.op == "call_function" and not constant:
            operator = _operator(node)
            if operator in IDENTITIES:
                self._pass_on(node)
            elif operator in NORMS:
                self._norm(node)
            else:
                self._add(node, operator, operand)

    def _pass_on(self, node: fx.Node) -> None:
        source = node.all_input_nodes[0].name
        self._operands[node.name] = self._operands[source]
        self._folding.passed(node.name, [source])

    def _norm(self, node: fx.Node) -> None:
        shape = self._operands[node.all_input_nodes[0].name].shape
        if node.args[3] is None or node.args[5] is True:
            # No running statistics: they are taken from the image.
            self._layers.append(replace(elementwise("norm", shape), name=self._name(node)))
            return
        if not self._folding.folds(node.all_input_nodes[0].name):
            self._layers.append(replace(elementwise("mul", shape), name=self._name(node)))
        self._folding.made(node.name)

    def _add(self, node: fx.Node, operator: str, operand: Operand) -> None:
        args: Any
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._operand)
        name = self._name(node)
        try:
            found = rows(operator, operand.shape, args, kwargs)
        except Unmodelled:
            self._unsupported.append((operator, name))
            return
        self._layers += [replace(row, name=name) for row in found]
        if operator in ("pad", "constant_pad_nd"):
            pads = zeros_around(args, kwargs)
            self._operands[node.name] = replace(operand, pads=pads if len(operand.shape) == 4 else NO_PADS)
        elif any(row.operator in WEIGHTED for row in found):
            self._folding.made(node.name)
        elif operator in ("cat", "concat"):
            self._folding.passed(node.name, [source.name for source in node.all_input_nodes])

    def _operand(self, node: fx.Node) -> Any:
        return self._operands[node.name]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        value = node.meta.get("val")
        if isinstance(value, tuple | list):
            # Of several results the first is what the operator is for; others are indices and the like.
            value = next(iter(value), None)
        shape = tuple(value.shape) if isinstance(value, Tensor) else ()
        if not all(isinstance(size, int) for size in shape):
            raise ExportError(
                f"layer '{self._name(node)}': the shape {shape} of {_operator(node)} depends on the data; "
                "a layer table needs fixed shapes"
            )
        return shape

    def _name(self, node: fx.Node) -> str:
        path = module_path(node)
        return f"{path}.{node.name}".lstrip(".") if path in self._parents or not path else path


def _live(program: ExportedProgram) -> list[fx.Node]:
    """Return the nodes that the outputs depend on; one that writes into its argument counts as read."""
    needed: set[fx.Node] = set()
    kept = []
    for node in reversed(program.graph.nodes):
        if node in needed or node.op == "output" or mutates(node):
            kept.append(node)
            needed.update(node.all_input_nodes)
    return kept[::-1]


def _operator(node: fx.Node) -> str:
    """Return the ATen operator's name, without its overload and whether it works in place."""
    name = operator_name(node).removeprefix("aten.")
    return name.removesuffix("_") if mutates(node) else name
