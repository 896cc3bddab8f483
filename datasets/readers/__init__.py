"""What lies on disk for a dataset, and how to read it: annotations, folders, splits, our files."""
