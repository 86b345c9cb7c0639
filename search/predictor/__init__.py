"""Predictors: from an architecture, or a distribution over architectures, to a device metric."""
