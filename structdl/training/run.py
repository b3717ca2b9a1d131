"""How long a run is, over which seeds, and what it saves: the flat options of the command line."""

import dataclasses
from pathlib import Path
from typing import Literal

from annotated_types import Ge, Le, Lt

from structdl.errors import InputError
from structdl.training.precision import Precision
from structdl.training.ranges import AnyFloat, NonNegativeInt, PositiveInt, check_ranges, in_range
from structdl.training.stopping import StoppingName

# a field that may differ when a run is resumed: it does not change what is computed
FREE = {"identity": False}
# under pmap each device draws for its own examples: whether and over how many is part of the run
BY_PMAP = {"identity": lambda run: run.parallel == "pmap"}


@dataclasses.dataclass(frozen=True)
class Run:
    """The options that every experiment has. A preset gives its own defaults."""

    num_steps: NonNegativeInt = dataclasses.field(default=1000, metadata=FREE)
    """Training steps of each seed, at most. May be raised to go on from where a run ended."""
    workdir: Path | None = dataclasses.field(default=None, metadata=FREE)
    """Where the run is kept; by default runs/TASK/PRESET-HASH. Running again there resumes."""
    seed: in_range(int, Ge(0), Lt(2**32)) = 0
    """The first seed."""
    num_seeds: in_range(int, Ge(1), Le(100_000)) = 1
    """Seeds seed to seed + num-seeds - 1 are run; figures are means over them."""
    eval_every: NonNegativeInt = 1
    """Steps between validations; 0 for none."""
    steps_per_call: in_range(int, Ge(1), Le(1_000_000)) = 1
    """Steps in one compiled call; logs and checkpoints sit on its multiples."""
    seed_mode: Literal["vmap", "loop"] = "vmap"
    """Whether seeds train together, in groups of seeds-per-call, or one after another."""
    seeds_per_call: PositiveInt = 16
    """The size of a group of seeds under seed-mode vmap."""
    stopping: StoppingName = "none"
    """window_mean: validation cost above the last ones' mean; patience: no better loss or score;
    solved: the score has reached stopping-score."""
    stopping_size: PositiveInt = 10
    """The window or the patience, in validations."""
    stopping_score: AnyFloat = 1.0
    """What ends a run under --stopping solved."""
    checkpoint_every: NonNegativeInt = dataclasses.field(default=0, metadata=FREE)
    """Steps between checkpoints; 0 saves at the end only."""
    log_every: PositiveInt = dataclasses.field(default=20, metadata=FREE)
    """Steps between writes to metrics.jsonl and TensorBoard."""
    precision: Precision = "float32"
    """bfloat16: models compute in it; parameters, sums over edges and losses stay in float32."""
    deterministic: bool = dataclasses.field(default=False, metadata=FREE)
    """Only programs whose results do not hang on the order of threads: on a GPU, slower ones."""
    parallel: Literal["none", "jit", "pmap"] = dataclasses.field(default="none", metadata=BY_PMAP)
    """Divide the seeds, or else each batch, over the devices; under pmap each draws for itself."""
    num_devices: NonNegativeInt = dataclasses.field(default=0, metadata=BY_PMAP)
    """How many devices to divide over; 0 takes all."""
    shard_parameters: bool = dataclasses.field(default=False, metadata=FREE)
    """Under --parallel jit divide parameters and the optimizer's state too, instead of copying."""
    coordinator: str = dataclasses.field(default="", metadata=FREE)
    """HOST:PORT where process 0 of several listens, or auto where the cluster says it."""
    num_processes: NonNegativeInt = dataclasses.field(default=0, metadata=FREE)
    """How many processes this run has, under --coordinator HOST:PORT."""
    process_id: in_range(int, Ge(-1)) = dataclasses.field(default=-1, metadata=FREE)
    """Which of them this one is, from 0."""
    overwrite: bool = dataclasses.field(default=False, metadata=FREE)
    """Start again, removing what the workdir holds of the run before."""
    evaluate_only: bool = dataclasses.field(default=False, metadata=FREE)
    """Test what the workdir holds, without training."""
    profile: bool = dataclasses.field(default=False, metadata=FREE)
    """Print what compiling, steps and input cost, and trace some steps for TensorBoard or xprof."""
    record: bool = dataclasses.field(default=False, metadata=FREE)
    """Write the figures to the experiment's results.json; the code must be committed."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.num_seeds))

    @property
    def compiler_options(self) -> dict[str, bool]:
        """What XLA is told of its programs.

        On a GPU a deterministic one is not chosen by timing, whose winner differs from run to run,
        and what a scatter adds to one place comes in a fixed order. Sums over an `EdgeLayout` have
        no such place and stay as fast. On a CPU of so many cores every program is deterministic.
        """
        return {"xla_gpu_deterministic_ops": True} if self.deterministic else {}

    def seed_groups(self) -> list[tuple[int, ...]]:
        """The seeds in the groups that are trained together."""
        size = self.seeds_per_call if self.seed_mode == "vmap" else 1
        return [self.seeds[start : start + size] for start in range(0, self.num_seeds, size)]

    def on_this_process(self) -> "Run":
        """The run as one device of one process reads it, however it was trained."""
        free = {"parallel", "num_devices", "shard_parameters", "deterministic"}
        free |= {"coordinator", "num_processes", "process_id"}
        fields = (field for field in dataclasses.fields(self) if field.name in free)
        return dataclasses.replace(self, **{field.name: field.default for field in fields})

    def validate(self) -> None:
        """Raises InputError where a number is out of its range, or two options conflict."""
        check_ranges(self)
        if self.seed + self.num_seeds > 2**32:
            raise InputError(f"--seed is {self.seed}; seeds are numbers below 2^32.")
        if self.evaluate_only and (self.overwrite or self.record or self.profile):
            raise InputError(
                "--evaluate-only trains nothing: leave out --overwrite, which removes the run, "
                "--record, which keeps the figures of a training, and --profile, which watches it."
            )
        if self.eval_every % self.steps_per_call and self.steps_per_call % self.eval_every:
            raise InputError(
                f"--eval-every {self.eval_every} and --steps-per-call {self.steps_per_call}: make "
                "one a multiple of the other, so that few programs are compiled."
            )
        if self.stopping != "none" and not 0 < self.eval_every <= self.num_steps:
            raise InputError(
                f"--stopping {self.stopping} needs validations, and --eval-every is "
                f"{self.eval_every} of {self.num_steps} steps: give an --eval-every of 1 to "
                "--num-steps, or --stopping none."
            )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where data is found. None of it changes what is computed."""

    raw_dir: Path | None = dataclasses.field(default=None, metadata=FREE)
    """Folder with one folder of raw files a dataset, in place of the network (or the variable
    STRUCTDL_RAW_DIR)."""
    dir: Path | None = dataclasses.field(default=None, metadata=FREE)
    """Where prepared sets go (or STRUCTDL_DATA_DIR); by default the user's cache directory."""
