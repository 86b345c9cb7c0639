"""The network graph: a torch network as a short list of plain operators, for exporters and layer tables."""

from ehdnas.core.graph.fold import fold_batch_norm
from ehdnas.core.graph.ir import Graph, Node, Value
from ehdnas.core.graph.onnx_table import read_onnx_table
from ehdnas.core.graph.rewrite import share_common
from ehdnas.core.graph.table import layer_table
from ehdnas.core.graph.trace import eval_mode, trace

__all__ = [
    "Graph",
    "Node",
    "Value",
    "eval_mode",
    "fold_batch_norm",
    "layer_table",
    "read_onnx_table",
    "share_common",
    "trace",
]
