from experiments.sequential_digits.train import main

main()
