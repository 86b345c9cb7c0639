"""The parity check: every exported file, in its own interpreter, against the network it came from."""

from ehdnas.exporters.parity.check import Reference, check_parity, compare, require_parity
from ehdnas.exporters.parity.fault import find_fault
from ehdnas.exporters.parity.run import Outcome, run_artifact

__all__ = ["Outcome", "Reference", "check_parity", "compare", "find_fault", "require_parity", "run_artifact"]
