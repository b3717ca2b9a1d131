from experiments.inductive.train import main

main()
