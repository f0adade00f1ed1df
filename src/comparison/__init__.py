"""What a set of kept runs says: which configuration is better, by how much, how surely and why."""
