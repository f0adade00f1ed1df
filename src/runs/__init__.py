"""One run as a value, and its results."""
