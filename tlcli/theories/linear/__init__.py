"""Linear networks in the proportional limit, and their experiments."""
