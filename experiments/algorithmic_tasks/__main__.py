from experiments.algorithmic_tasks.train import main

main()
