"""One sample with all that is known of it."""
