"""`python -m demo`: a manager, a run, its timeline. `example.py` is what runs."""
