"""Digits read patch by patch by a 3-LSTM: from the four corners, layer by layer."""
