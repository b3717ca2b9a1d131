from experiments.link_prediction.train import main

main()
