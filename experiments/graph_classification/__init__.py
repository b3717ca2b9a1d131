"""Graph classification: one label, or several, for each of many small graphs."""
