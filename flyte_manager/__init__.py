"""Flyte Manager: the backend of Flyte 2 in one process. Read `app.py` first."""

__version__ = "0.1.0"
