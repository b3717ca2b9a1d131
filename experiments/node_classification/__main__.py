from experiments.node_classification.train import main

main()
