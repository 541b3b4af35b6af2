"""Losses of kernel regression averaged over training samples, from one kernel on a pool of points."""
