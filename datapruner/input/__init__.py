"""From whatever a user has to raw rows, and from a raw row to a conversation."""
