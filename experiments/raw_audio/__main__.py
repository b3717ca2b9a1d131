from experiments.raw_audio.train import main

main()
