"""SQL that users write, run against published DuckDB files in a process that is thrown away."""
