"""Decide (`scheduler`), execute (`engine`), hold (`state_pool`): generation for many sessions at once."""
