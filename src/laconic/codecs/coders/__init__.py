"""Coders: integers and floats to bytes, without loss, on the host. They know no stage."""
