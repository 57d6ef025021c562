"""A run for people to see and to judge: one document of numbers, and one page that shows it."""
