"""Linear two-layer networks in the proportional limit: the theory of transfer, end to end."""
