"""Training from image labels."""
