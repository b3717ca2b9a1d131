"""Graph tasks whose answers an algorithm computes: paths, circuits, deductions, depth."""
