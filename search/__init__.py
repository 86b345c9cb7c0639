"""Spaces, supernet, relaxation, predictor, objective, searcher and trainer. No device is needed here."""
