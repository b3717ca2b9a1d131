"""Inductive node classification: sampled neighbourhoods, test nodes unseen in training."""
