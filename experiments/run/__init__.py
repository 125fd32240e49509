"""A run, from its command line to its finished folder."""
