"""Recipes: how the shipped models were made, from public data, by commands that anyone can run."""
