"""From a torch network to a graph, by way of torch.export."""

from __future__ import annotations

import io
import logging
import operator
import re
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ehdnas.core.errors import ExportError, UnsupportedOperatorError, UsageError
from ehdnas.core.graph.ir import Graph, Node, Shape, Value, shapes_of
from ehdnas.core.graph.operators import HANDLERS, IDENTITIES, Call, Refusal
from ehdnas.core.graph.rewrite import merge_geometry

# torch.export keeps its state in globals, and silencing it touches more of them.
_LOCK = threading.RLock()


def trace(model: nn.Module, input_shape: Shape | Sequence[Shape]) -> Graph:
    """Return the graph of `model` in eval mode for one float32 image of `input_shape` (C, H, W).

    A module of several inputs, such as a cell, is given the shape of each.

    The model is left as it was found; the graph's parameters are copies.

    Raises:
        UnsupportedOperatorError: an operator the graph has no word for; names it and its module path.
        ExportError: torch.export refuses the model, or it does not return one tensor.
        UsageError: a shape is not three positive integers.
    """
    program = exported(model, input_shape, functional=True)
    with torch.no_grad():
        graph = _Walk(program).graph()
    refused = dict.fromkeys(node.attrs["refusal"] for node in graph.nodes if node.op == "unsupported")
    if refused:
        listed = ", ".join(list(refused)[:4]) + (", ..." if len(refused) > 4 else "")
        raise UnsupportedOperatorError(
            f"cannot export {listed}: not supported; "
            "build the network from convolutions, poolings, linear layers, ReLUs, adds, concats and the like"
        )
    return graph


def exported(
    model: nn.Module, input_shape: Shape | Sequence[Shape], functional: bool = False
) -> ExportedProgram:
    """Return torch.export's program of `model` in eval mode for one image; `functional`: none in place.

    Raises:
        ExportError: torch.export refuses the model; names the module it was in.
        UsageError: a shape is not three positive integers.
    """
    shapes = shapes_of(input_shape)
    for shape in shapes:
        if len(shape) != 3 or any(size < 1 for size in shape):
            raise UsageError(f"input shape {tuple(shape)} is not (channels, height, width)")
    with _LOCK, _quiet(), eval_mode(model), torch.no_grad():
        return _export(model, shapes, functional)


def _export(model: nn.Module, shapes: tuple[Shape, ...], functional: bool) -> ExportedProgram:
    first = next(model.parameters(), None)
    device = None if first is None else first.device
    images = tuple(torch.zeros(1, *shape, device=device) for shape in shapes)
    try:
        program = torch.export.export(model, images, strict=False)
        if functional and any(mutates(node) for node in program.graph.nodes):
            # With no decompositions asked for, this only turns in-place operators into plain ones.
            program = program.run_decompositions({})
    except Exception as error:  # torch.export raises whatever the model's own code raises
        reason = str(error).strip().split("\n")[0]
        raise ExportError(
            f"torch.export refuses {_culprit(model, error)} for input "
            f"{' and '.join(str((1, *shape)) for shape in shapes)}: "
            f"{reason or type(error).__name__}; "
            "check the input shape, and that no control flow in its forward depends on the data"
        ) from error
    return program


def _culprit(model: nn.Module, error: Exception) -> str:
    """Return the model's type and, where the error came out of a module inside it, that module's path."""
    paths = {id(module): path for path, module in model.named_modules()}
    frames = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    inside = [paths[id(module)] for module in frames if id(module) in paths]
    name = type(model).__name__
    return f"{name} at '{inside[-1]}'" if inside and inside[-1] else name


def mutates(node: torch.fx.Node) -> bool:
    """Return whether the node's operator writes into an argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


class _Walk:
    """One pass over a program, to a graph with `unsupported` nodes where it has no word.

    `env` holds a Value for what depends on the image, and constants.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.env: dict[str, Any] = _constants(program)
        self.nodes: list[Node] = []

    def graph(self) -> Graph:
        names = self.program.graph_signature.user_inputs
        outputs = self.program.graph_signature.user_outputs
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in names:
                self.env[node.name] = Value(node.name, tuple(node.meta["val"].shape))
            elif node.op == "call_function":
                self.env[node.name] = self._visit(node)
        if len(outputs) != 1:
            raise ExportError(
                f"the network returns {len(outputs)} values; it must return the logits alone in eval mode"
            )
        output = self.env.get(str(outputs[0]))
        if not isinstance(output, Value):
            raise ExportError("the network's output does not depend on its input; there is nothing to export")
        inputs = tuple(self.env[str(name)] for name in names)
        return merge_geometry(Graph(inputs, output, ()).with_nodes(self.nodes))

    def _visit(self, node: torch.fx.Node) -> Any:
        args: Any
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda arg: self.env[arg.name])
        inputs = [self.env[arg.name] for arg in node.all_input_nodes]
        if not any(isinstance(value, Value) for value in inputs) and not _is_random(node):
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.target is operator.getitem:
            # One of several results: a batch norm's first, or any of an unsupported operator's.
            return Value(args[0].name, _shape(node))
        call = Call(operator_name(node), node.name, _shape(node), module_path(node))
        if call.operator in IDENTITIES:
            return args[0]
        try:
            if any(not isinstance(size, int) for size in call.shape):
                call.shape = ()
                raise call.refusal("whose result's shape depends on the data")
            result = _translate(call, args, kwargs)
        except Refusal as refusal:
            call.emitted.clear()
            values = tuple(value for value in inputs if isinstance(value, Value))
            result = call.emit("unsupported", values, operator=call.operator, refusal=str(refusal))
        self.nodes += call.emitted
        return result


def _translate(call: Call, args: Any, kwargs: Any) -> Value:
    handler = HANDLERS.get(call.operator)
    if handler is None:
        raise call.refusal()
    try:
        return handler(call, *args, **kwargs)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        # An overload, or a mix of constants and images, that the handler was not written for.
        raise call.refusal("with these arguments") from error


def _constants(program: ExportedProgram) -> dict[str, Any]:
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    stored: dict[str, Any] = {**program.constants, **program.state_dict}
    return {name: stored[target] for name, target in names.items()}


def operator_name(node: torch.fx.Node) -> str:
    """Return the operator's name without its overload, such as `aten.conv2d`."""
    if isinstance(node.target, torch._ops.OpOverload):
        return ".".join(str(node.target).split(".")[:2])
    return str(getattr(node.target, "__name__", node.target))


def _is_random(node: torch.fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _shape(node: torch.fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def module_path(node: torch.fx.Node) -> str:
    """Return the path of the module whose forward the node is of; empty for the model's own."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    # A module called twice appears as "relu" and then "relu@1".
    return re.sub(r"@\d+", "", str(stack[-1][0])) if stack else ""


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode for a while; every module gets its own mode back.

    One at a time: modes given back while the same model is traced elsewhere would be traced.
    """
    with _LOCK:
        training = [module for module in model.modules() if module.training]
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.export's own warnings and logs (whole graphs, when it refuses) off the user's screen."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
