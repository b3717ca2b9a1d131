from experiments.algorithmic_graphs.train import main

main()
