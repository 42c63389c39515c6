"""flyteidl2 <-> domain: the one place that knows both."""
