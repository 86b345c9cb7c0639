"""From a torch network to an artifact: one file a target, and the check that file and network agree.

Nothing here imports torch, TensorFlow or ONNX until a network is exported.
"""

from ehdnas.core.export_options import ExportOptions
from ehdnas.exporters.base import Exporter, find_exporter
from ehdnas.exporters.deliver import Delivery, deliver, export_network, write_labels
from ehdnas.exporters.parity import Reference, check_parity, require_parity, run_artifact

__all__ = [
    "Delivery",
    "ExportOptions",
    "Exporter",
    "Reference",
    "check_parity",
    "deliver",
    "export_network",
    "find_exporter",
    "require_parity",
    "run_artifact",
    "write_labels",
]
