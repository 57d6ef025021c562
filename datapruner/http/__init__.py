"""What both sides of a connection need: when to try again, and which addresses are whose."""
