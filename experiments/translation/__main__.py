from experiments.translation.train import main

main()
