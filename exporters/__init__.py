"""From a torch network to an artifact: one file a target, and the check that file and network agree.

Nothing here imports torch, TensorFlow or ONNX until a network is exported.
"""

from ehdnas.exporters.base import Exporter, find_exporter
from ehdnas.exporters.parity import check_parity, require_parity, run_artifact

__all__ = ["Exporter", "check_parity", "find_exporter", "require_parity", "run_artifact"]
