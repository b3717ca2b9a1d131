"""Lists the experiments and their presets."""

from experiments import get, names
from structdl.training.cli import list_presets
from structdl.training.runtime import while_somebody_reads

with while_somebody_reads():
    for name in names():
        print(f"python -m experiments.{name} [PRESET] [--help]")
        print("  " + list_presets(get(name)).replace("\n", "\n  "))
    print("python -m experiments.optimizer_comparison [--tasks EXPERIMENT:PRESET ...] [--help]")
    print("  compares optimizers on landscapes, or on any of the presets above")
