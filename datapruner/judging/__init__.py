"""Rows rated by a teacher: the rubrics, what is asked by them, and the scores that come of it."""
