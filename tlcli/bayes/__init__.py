"""Bayesian theory of transfer learning in infinite-width two-layer networks: adaptive kernels, elastic coupling."""
