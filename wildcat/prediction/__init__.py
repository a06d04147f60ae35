"""From images to scores, points and maps in pixels of the original image."""
