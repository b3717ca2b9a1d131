"""Link prediction: which nodes are joined, and what embeddings without labels hold."""
