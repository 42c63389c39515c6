"""The operator: makes the world match the rows of actions, and reports what it sees."""
