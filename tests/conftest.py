"""Lets tests run pytest."""

pytest_plugins = ["pytester"]
