"""The commands: thin files that turn a config into calls of the library."""
