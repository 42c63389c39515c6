"""The world without Kubernetes: a shepherded process per attempt, forked from a zygote. Read `runtime.py` first."""
