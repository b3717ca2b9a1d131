"""Optimizers compared: on landscapes of two variables, and on any preset of any experiment."""
