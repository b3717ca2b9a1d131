"""Semi-supervised node classification: few labelled nodes, one graph."""
