"""Models by name: the registry, downloads, the models directory, and reading weights files."""
