"""Measuring on a Ray cluster: the same tasks, processes and shards, driven by `ray.data` over its nodes."""
