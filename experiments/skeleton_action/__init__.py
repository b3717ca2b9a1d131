"""Actions of moving skeletons: graph convolutional LSTMs, spatial reasoning, and plain networks."""
