"""The calls of `ssp.v1`, a file a service: messages in, messages out; errors are raised, the border translates them."""
