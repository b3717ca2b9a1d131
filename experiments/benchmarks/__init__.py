"""structdl against its peers: `python -m experiments.benchmarks FAMILY`."""
