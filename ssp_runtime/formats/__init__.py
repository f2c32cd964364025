"""Models on disk: our own artifact, conversion to recurrent form, and other people's checkpoints."""
