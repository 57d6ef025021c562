"""What a model learns from a subset, against what it learns from the same number of other tokens."""
