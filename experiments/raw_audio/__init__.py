"""Raw audio: the next ten samples of a recording, by recurrence or by convolution."""
