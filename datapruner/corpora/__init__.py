"""Corpora: rows ingested once into an immutable file, with every row accounted for."""
