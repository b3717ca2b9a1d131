from experiments.relational_inference.train import main

main()
