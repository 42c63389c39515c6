"""What may happen to runs, actions and projects; the only writer of their rows."""
