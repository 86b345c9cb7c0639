"""The generic paradigm: one reusable array of multiply-accumulate units runs the layers in turn."""
