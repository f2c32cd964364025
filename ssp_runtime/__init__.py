"""Recurrent sequence models: their mathematics, training, conversion to recurrent form, engine and sessions."""
