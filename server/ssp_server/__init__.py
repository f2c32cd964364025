"""The server: gRPC, metrics, health, configuration and command line around `ssp_runtime`."""
