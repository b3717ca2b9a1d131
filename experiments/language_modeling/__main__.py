from experiments.language_modeling.train import main

main()
