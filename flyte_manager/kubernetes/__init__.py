"""The world with Kubernetes: a TaskAction per action, a pod per attempt. Read `taskactions.py` and `runtime.py` first."""
