"""What leaves a run: subsets to train on."""
