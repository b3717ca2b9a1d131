"""Digits read pixel by pixel, in order and permuted, by recurrence or convolution."""
