from experiments.polyphonic_music.train import main

main()
