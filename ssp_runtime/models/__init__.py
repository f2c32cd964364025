"""Whole models: an embedding, a stack of blocks, a head. Architectures are data (`config`), never code of their own."""
