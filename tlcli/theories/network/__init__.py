"""Nonlinear networks of any depth on actual data, and their experiments."""
