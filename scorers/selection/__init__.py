"""What methods share: ranking, spreading, grouping, comparing."""
