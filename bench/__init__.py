"""Measurements of the manager: `python -m bench`. `measures.py` holds them, one function each."""
