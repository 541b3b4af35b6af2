"""Grids, the point store, executors and the runner of costly sweeps."""
