from experiments.synthetic_sequences.train import main

main()
