"""How fast rounds run."""
