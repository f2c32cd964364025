"""`ssp-model`: train, convert, inspect, verify."""
