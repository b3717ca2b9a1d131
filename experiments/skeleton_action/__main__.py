from experiments.skeleton_action.train import main

main()
