"""Search spaces: one file, or one folder, each."""
