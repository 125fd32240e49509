"""Sets that are prepared once, from what others publish."""
