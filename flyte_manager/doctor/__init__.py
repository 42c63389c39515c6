"""`flyte-manager doctor`: looks at everything that a start needs, and says what to do.

findings.py  what a check says      machine.py  settings, ports, files, processes: changes nothing
cluster.py   the cluster and the object storage: cleans up   way_back.py  a pod that calls the manager
pods.py      opens what cluster.py looks at, as a start would

Each check takes plain values and gives one or more findings. The last three import the Kubernetes client,
so whoever only starts processes must not import them.
"""
