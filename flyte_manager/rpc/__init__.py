"""The network edge: listeners, the gate, dispatch, and what every RPC has in common. It knows no service by name."""
