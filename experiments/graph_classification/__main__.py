from experiments.graph_classification.train import main

main()
