"""Composition roots: what each process builds, and imports no more than that."""
