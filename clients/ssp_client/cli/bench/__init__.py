"""`ssp bench`."""
