"""The pipeline paradigm: a stage of its own for each layer, all busy at once."""
