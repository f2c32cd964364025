"""Sessions: states that users name, and that outlive streams, clients and calls."""
