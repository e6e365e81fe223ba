"""The version, where the build can read it without importing anything."""

__version__ = "3.1.0"
