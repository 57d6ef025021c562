"""A chain of thought as steps, and which of them to leave out."""
