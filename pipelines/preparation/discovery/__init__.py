"""What lies at a source's path: files, their names, splits and labels."""
