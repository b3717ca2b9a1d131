from experiments.temporal_localization.train import main

main()
