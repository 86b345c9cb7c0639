"""The network graph: a torch network as a short list of plain operators, for exporters and layer tables."""

from ehdnas.core.graph.execute import Params, Watch, apply, batches, execute, params_of
from ehdnas.core.graph.fold import fold_batch_norm
from ehdnas.core.graph.ir import Array, Graph, Node, Shape, Value, shapes_of
from ehdnas.core.graph.onnx_table import read_onnx_table
from ehdnas.core.graph.rewrite import share_common, sink_relu
from ehdnas.core.graph.table import layer_table
from ehdnas.core.graph.trace import eval_mode, trace

__all__ = [
    "Array",
    "Graph",
    "Node",
    "Params",
    "Shape",
    "Value",
    "Watch",
    "apply",
    "batches",
    "eval_mode",
    "execute",
    "fold_batch_norm",
    "layer_table",
    "params_of",
    "read_onnx_table",
    "shapes_of",
    "share_common",
    "sink_relu",
    "trace",
]
