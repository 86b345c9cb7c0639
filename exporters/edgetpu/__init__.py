"""The Edge TPU: what its compiler takes, where one can be run, and what it says of a model."""
