"""The stages composed: the only place that knows search, profilers and exporters alike."""
