"""What a run will take, told from a few of its rows before it begins."""
