"""E2E-Perf: analytic end-to-end performance of customised accelerators, one file a paradigm."""
