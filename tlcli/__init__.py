"""Theory of transfer learning in infinite-width networks that learn features."""

__version__ = "0.1.0"
