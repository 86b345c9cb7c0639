"""ehdnas: from a device, a data set and a latency budget to a network that meets the budget there."""

__version__ = "0.1.0"
