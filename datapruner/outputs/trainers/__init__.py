"""Subsets in the formats of trainers: one file each, and the table of them in `registry`."""
