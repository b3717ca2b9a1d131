from experiments.optimizer_comparison.compare import main

main()
