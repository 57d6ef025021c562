"""What is judged row by row beside the scores: duplicates, contamination, calibration."""
