"""The version, for what must not load the functions of the package to know it."""

__version__ = "0.1.0"
