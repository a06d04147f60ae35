"""A run directory: what training writes and everything else reads."""
