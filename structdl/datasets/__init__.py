"""Data sets: one TFDS builder a file, each with a `load` that returns NumPy arrays."""
