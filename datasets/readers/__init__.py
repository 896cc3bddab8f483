"""How files and folders on disk are read: annotations, class folders, splits, derived files."""
