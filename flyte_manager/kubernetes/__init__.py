"""The world with Kubernetes: a TaskAction for each action, a pod for each attempt.

Read `taskactions.py` and `runtime.py` first.
"""
