"""Language modeling: the next character or word, by recurrence or by convolution."""
