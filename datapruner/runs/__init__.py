"""A run from a request to what it publishes: stages, scores, masks, tables."""
