"""Where models come from, their chat templates, and how they are loaded."""
