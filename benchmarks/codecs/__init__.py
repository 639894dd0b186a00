"""How fast codecs run."""
