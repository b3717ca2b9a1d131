"""Memory of a partitioned graph: `python -m experiments.benchmarks.partition_memory`."""
