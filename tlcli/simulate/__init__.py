"""The finite-size experiments that the theory is tested against."""
