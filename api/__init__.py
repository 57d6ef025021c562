"""The HTTP service. Empty until the service is built."""
