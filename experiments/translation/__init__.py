"""Machine translation: re-encoding the source for each target word, or an encoder and a decoder."""
