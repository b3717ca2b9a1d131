"""The loop against optax by hand; seeds, chunks, freezing and divergence do not change a run."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from structdl.errors import InputError
from structdl.training.checkpoints import Checkpoints
from structdl.training.evaluate import make_evaluate
from structdl.training.logging import MetricsLog
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.programs import next_call
from structdl.training.run import Run
from structdl.training.task import Inputs

ADAM = make_optimizer(OptimizerConfig("adam", 0.05))


def by_hand(task, seed, num_steps):
    """The same run in plain optax, without any of our loop."""
    init_key, _ = jax.random.split(jax.random.key(seed))
    params, _ = task.init(init_key, Inputs(task.data, (), task.batch(0, seed)))
    transform = optax.adam(0.05)
    opt_state = transform.init(params)

    def loss(params, batch):
        (total, count), _ = task.loss_fn(params, (), Inputs(task.data, (), batch), None)
        return total / count

    losses = []
    for step in range(num_steps):
        value, grads = jax.value_and_grad(loss)(params, task.batch(step, seed))
        updates, opt_state = transform.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(value)
    return params, losses


def test_fit_equals_optax_by_hand(regression):
    log = MetricsLog(None)
    result = fit(regression, ADAM, Run(num_steps=9, steps_per_call=4, eval_every=0), log=log)
    params, losses = by_hand(regression, 0, 9)
    np.testing.assert_allclose(result.selected[0]["kernel"][0], params["kernel"], rtol=1e-5)
    # one row a call of 4, 4 and 1 steps, at the end of the log's interval
    logged = [(row["step"], row["train_loss"]) for row in log.rows]
    assert [step for step, _ in logged] == [9]
    np.testing.assert_allclose(logged[0][1], np.mean(losses), rtol=1e-4)


def test_chunks_of_steps_do_not_change_a_run(regression):
    runs = [Run(num_steps=12, steps_per_call=n, eval_every=2) for n in (1, 4, 12)]
    states = [fit(regression, ADAM, run).state for run in runs]
    for state in states[1:]:
        chex.assert_trees_all_close(state.train.params, states[0].train.params, rtol=1e-6)


def test_a_seed_in_a_group_equals_that_seed_alone(regression):
    run = Run(num_steps=10, num_seeds=5, seeds_per_call=3, steps_per_call=5, eval_every=5)
    together = fit(regression, ADAM, run)
    assert together.seeds == (0, 1, 2, 3, 4)
    for seed in (1, 4):
        alone = fit(regression, ADAM, dataclasses.replace(run, seed=seed, num_seeds=1))
        np.testing.assert_allclose(
            together.selected[0]["kernel"][seed], alone.selected[0]["kernel"][0], rtol=1e-5
        )
    one_by_one = fit(regression, ADAM, dataclasses.replace(run, seed_mode="loop"))
    chex.assert_trees_all_close(one_by_one.selected, together.selected, rtol=1e-5)


def test_a_stopped_seed_is_frozen_and_the_others_go_on(regression):
    options = dict(stopping="patience", stopping_size=3, num_steps=400, eval_every=1)
    run = Run(num_seeds=3, steps_per_call=50, **options)
    log = MetricsLog(None)
    result = fit(regression, make_optimizer(OptimizerConfig("sgd", 0.2)), run, log=log)
    steps = np.asarray(result.state.train.step)
    assert result.state.stopped.all()
    assert len(set(steps.tolist())) > 1, "seeds stop at different steps"
    for seed, step in enumerate(steps):
        rows = [row for row in log.rows if row["seed"] == seed]
        assert rows[-1]["step"] == step, "nothing is logged after a seed has stopped"
        best = min(rows, key=lambda row: row["validation_loss"])
        kernel = result.selected[0]["kernel"][seed]
        evaluate = make_evaluate(regression)
        loss = evaluate(
            ({"kernel": kernel[None]}, ()),
            jax.random.split(jax.random.key(9), 1),
            [0],
            "validation",
        )
        np.testing.assert_allclose(loss["loss"][0], best["validation_loss"], rtol=1e-3, atol=1e-6)


def test_a_diverging_seed_keeps_its_last_finite_state(regression):
    def explodes(params, state, inputs, key):
        (total, count), aux = regression.loss_fn(params, state, inputs, key)
        bad = inputs.seed_data & (jnp.abs(params["kernel"][0]) > 0.5)
        return (jnp.where(bad, jnp.nan, total), count), aux

    task = regression._replace(
        loss_fn=explodes,
        init=lambda key, inputs: ({"kernel": jnp.zeros(3)}, ()),
        seed_data=lambda seed: np.asarray(seed == 1),
    )
    result = fit(task, ADAM, Run(num_steps=60, num_seeds=2, steps_per_call=20, eval_every=20))
    assert result.state.diverged.tolist() == [False, True]
    assert result.state.train.step[0] == 60
    assert 0 < result.state.train.step[1] < 60
    chex.assert_tree_all_finite(result.state.train.params)


def test_one_program_is_compiled_for_all_calls_and_groups(regression):
    traces = []

    def counted(params, state, inputs, key):
        traces.append(1)
        return regression.loss_fn(params, state, inputs, key)

    task = regression._replace(loss_fn=counted)
    fit(
        task, ADAM, Run(num_steps=12, num_seeds=4, seeds_per_call=2, steps_per_call=4, eval_every=4)
    )
    once = len(traces)
    traces.clear()
    fit(task, ADAM, Run(num_steps=4, num_seeds=2, seeds_per_call=2, steps_per_call=4, eval_every=4))
    assert len(traces) == once


def test_seeds_may_have_hyperparameters_of_their_own(regression):
    """Each as if its optimizer had had them; all by one program."""
    traces = []

    def counted(params, state, inputs, key):
        traces.append(1)
        return regression.loss_fn(params, state, inputs, key)

    run = Run(num_steps=8, num_seeds=4, seeds_per_call=2, steps_per_call=4, eval_every=4)
    own = [{"learning_rate": rate} for rate in (0.05, 0.2, 0.01, 0.1)]
    found = fit(regression._replace(loss_fn=counted), ADAM, run, hyperparams=own)
    together = len(traces)
    traces.clear()
    fit(regression._replace(loss_fn=counted), ADAM, run)
    assert together == len(traces)
    for seed, hyperparams in enumerate(own):
        alone = make_optimizer(OptimizerConfig("adam", **hyperparams))
        expected = fit(regression, alone, dataclasses.replace(run, seed=seed, num_seeds=1))
        np.testing.assert_allclose(
            found.selected[0]["kernel"][seed], expected.selected[0]["kernel"][0], rtol=1e-5
        )


def test_hyperparameters_that_do_not_fit_are_refused(regression):
    run = Run(num_steps=2, num_seeds=2)
    with pytest.raises(InputError, match="hyperparameters for 1 of 2 seeds"):
        fit(regression, ADAM, run, hyperparams=[{}])
    with pytest.raises(InputError, match=r"'learn_rate'.*'learning_rate'"):
        fit(regression, ADAM, run, hyperparams=[{}, {"learn_rate": 0.1}])


def test_fit_goes_on_from_its_checkpoints_bit_for_bit(regression, tmp_path):
    run = Run(num_steps=20, num_seeds=3, seeds_per_call=2, steps_per_call=5, eval_every=5)
    whole = fit(regression, ADAM, run)
    store = lambda group: Checkpoints(tmp_path / group)  # noqa: E731
    fit(regression, ADAM, dataclasses.replace(run, num_steps=10), checkpoints=store)
    resumed = fit(regression, ADAM, run, checkpoints=store)
    assert resumed.resumed == 1
    chex.assert_trees_all_equal(resumed.state, whole.state)


def test_another_models_checkpoint_is_refused(regression, tmp_path):
    store = lambda group: Checkpoints(tmp_path / group)  # noqa: E731
    fit(regression, ADAM, Run(num_steps=2), checkpoints=store)
    wider = regression._replace(
        init=lambda key, inputs: ({"kernel": jnp.zeros(3), "more": jnp.zeros(2)}, ())
    )
    with pytest.raises(InputError, match="does not fit this model"):
        fit(wider, ADAM, Run(num_steps=4), checkpoints=store)


def test_calls_cover_every_step_and_validate_at_multiples():
    for eval_every, steps_per_call in ((1, 4), (4, 1), (2, 8), (8, 2), (5, 5), (0, 3)):
        run = Run(num_steps=23, eval_every=eval_every, steps_per_call=steps_per_call)
        step, validated = 0, []
        while step < run.num_steps:
            call = next_call(step, run, validates=True)
            for _ in range(call.rounds):
                step += call.steps
                validated += [step] if call.evaluate else []
        assert step == 23
        expected = [step for step in range(1, 24) if eval_every and step % eval_every == 0]
        assert validated == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(num_seeds=0), "--num-seeds is 0"),
        (dict(eval_every=3, steps_per_call=7), "one a multiple of the other"),
        (dict(eval_every=0, stopping="patience"), "needs validations.* or --stopping none"),
        (dict(eval_every=5, num_steps=3, stopping="patience"), "--eval-every is 5 of 3 steps"),
    ],
)
def test_a_run_that_cannot_be_is_refused(regression, options, words):
    with pytest.raises(InputError, match=words):
        fit(regression, ADAM, Run(**options))


def test_evaluation_ignores_padding_and_divides_once(regression):
    kernel = jnp.array([[0.5, 0.0, 1.0]])
    evaluate = make_evaluate(regression)
    values = evaluate(
        ({"kernel": kernel}, ()), jax.random.split(jax.random.key(0), 1), [0], "validation"
    )
    features, targets = regression.data
    expected = np.mean((features[32:37] @ np.asarray(kernel[0]) - targets[32:37]) ** 2)
    np.testing.assert_allclose(values["loss"], [expected], rtol=1e-5)
    assert (
        evaluate(({"kernel": kernel}, ()), jax.random.split(jax.random.key(1), 1), [0], "test")
        == {}
    )
