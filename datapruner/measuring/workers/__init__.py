"""Ways to run the forward pass: worker processes on this machine."""
