from experiments.grid_lstm_digits.train import main

main()
