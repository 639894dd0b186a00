"""How many bytes a target accuracy costs."""
