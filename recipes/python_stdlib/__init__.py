"""A byte-level language model of the Python standard library."""
