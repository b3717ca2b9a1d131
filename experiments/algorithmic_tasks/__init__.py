"""Parity, addition and memorization: what Grid LSTM networks learn where others do not."""
