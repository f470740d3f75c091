"""The version, below everything that names it."""

__version__ = "0.2.0.dev0"
