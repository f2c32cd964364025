"""Training in parallel form."""
