"""The systolic paradigm: matrix products on an array of cells that pass operands on."""
