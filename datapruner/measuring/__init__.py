"""Every sample through the proxy model once: passes, worker processes, and the cache of their signals."""
