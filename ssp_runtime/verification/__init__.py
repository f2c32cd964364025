"""Whether the forms of a model, and other programs' forms of it, compute the same."""
