from experiments.benchmarks.partition_memory.measure import main

main()
