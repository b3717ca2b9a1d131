"""What a profile says of runs whose costs are known."""

import time

from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import TRACED_CALLS, Profile
from structdl.training.run import Run

SGD = make_optimizer(OptimizerConfig("sgd", 0.1))


def profiled(task, run: Run, trace_to=None) -> tuple[Profile, dict[str, str]]:
    profile = Profile(trace_to)
    fit(task, SGD, run, profile=profile)
    lines = [line.strip().split("  ", 1) for line in profile.table().splitlines()]
    return profile, {name: text.strip() for name, text in lines}


def test_a_run_of_equal_calls_compiles_once(regression):
    tables = []
    for num_steps in (5, 10, 40):
        run = Run(num_steps=num_steps, steps_per_call=5, eval_every=5)
        profile, table = profiled(regression, run)
        assert profile.recompilations == []
        assert "trace" not in table
        tables.append(table)
    _, *counts = [int(table["compiled"].split()[0]) for table in tables]
    assert counts[0] == counts[1] >= 3  # the first state, the call, the selection at the end
    assert tables[2]["step"].endswith("of 7 calls' means")


def test_a_changed_shape_is_named(regression, tmp_path, capsys):
    run = Run(num_steps=12, steps_per_call=5, eval_every=0)
    profile, table = profiled(regression, run, tmp_path)
    change = "batches.0 was int32 [1, 1, 5] and is int32 [1, 1, 2]"
    assert profile.recompilations == [change] == [table["recompiled"]]
    assert f"call 3 was compiled again: {change}" in capsys.readouterr().err


def test_a_slow_input_is_seen(regression):
    def slow_batch(step, seed):
        time.sleep(0.02)
        return regression.batch(step, seed)

    run = Run(num_steps=30, steps_per_call=1, eval_every=0)
    fit(regression, SGD, run)  # what is compiled here is not compiled again
    _, table = profiled(regression._replace(batch=slow_batch), run)
    _, quick = profiled(regression, run)
    share, quick_share = (float(each["input wait"].split("%")[0]) for each in (table, quick))
    assert share > max(80, quick_share)
    median = float(table["step"].split()[1])
    assert median >= 20


def test_calls_after_the_first_are_traced(regression, tmp_path):
    run = Run(num_steps=2 + TRACED_CALLS, steps_per_call=1, eval_every=0, num_seeds=2)
    _, table = profiled(regression, run, tmp_path)
    assert table["trace"] == str(tmp_path)
    (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    assert trace.stat().st_size > 1000


def test_a_single_call_leaves_nothing_to_trace(regression, tmp_path):
    _, table = profiled(regression, Run(num_steps=4, steps_per_call=4, eval_every=0), tmp_path)
    assert table["trace"] == "no second call"
    assert "raise --num-steps" in table["step"]
    assert not list(tmp_path.iterdir())
    assert float(table["peak memory"].split()[0]) > 0.1
