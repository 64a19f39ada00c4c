"""Discovery of a source's files, their names, splits and labels."""
