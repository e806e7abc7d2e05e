"""A local Hub over plain folders: enough of the HTTP interface for the real clients."""
