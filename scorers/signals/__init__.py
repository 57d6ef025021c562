"""What a proxy model says of a sample, read exactly, in one forward pass."""
