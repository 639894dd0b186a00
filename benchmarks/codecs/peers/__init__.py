"""Others' compressors on the same vectors, each in its own environment."""
