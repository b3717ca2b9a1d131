"""Measures structdl against its peers on this machine, in one run: ratio = peer / structdl."""

from experiments.benchmarks.measure import main

main()
