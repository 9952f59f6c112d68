"""What the hub keeps on disk, behind one interface."""
