"""What runs, actions and attempts are and how they move. Pure: no I/O, no protobuf, no clock of its own."""
