"""Stages: transforms, quantizers, sparsifiers and memories, each one array to named arrays and back."""
