"""Bayesian networks, and their experiments."""
