"""Polyphonic music: the keys of the next step from those before, by recurrence or convolution."""
