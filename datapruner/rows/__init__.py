"""Rows as columns, as JSON and as files: what a corpus keeps of them and what leaves it have one form."""
