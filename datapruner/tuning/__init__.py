"""A model trained on rows: its steps, what passes through it at once, its loss."""
