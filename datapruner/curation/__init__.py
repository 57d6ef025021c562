"""What is judged row by row beside the scores: defects, duplicates, contamination, calibration."""
