"""Weakly supervised localization: the loss, the scores, gains between runs, and the contracts."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments.temporal_localization import compare
from experiments.temporal_localization.data import MAX_TIME, load, videos_of
from experiments.temporal_localization.presets import PRESETS, Config, MatcherConfig
from experiments.temporal_localization.scores import activations, locate, precision_table, score
from experiments.temporal_localization.train import EXPERIMENT, main, make_matcher, make_task
from structdl.errors import InputError
from structdl.graphs.prototypes import best_frames_mean, co_occurrence_graph, video_loss
from structdl.temporal.localization import find_intervals
from structdl.training.cli import run_experiment
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.run import DataConfig, Run
from structdl.training.task import Inputs

TINY = ["--num-train", "40", "--num-validation", "9", "--num-test", "12", "--batch-size", "8"]
TINY += ["--model.hidden", "8", "--model.features", "8"]


@pytest.fixture(scope="module")
def config(data_dir):
    run = Run(num_steps=20, eval_every=0, steps_per_call=5)
    model, data = MatcherConfig(features=8, hidden=8, dropout=0.0), DataConfig(dir=data_dir)
    return Config(40, 9, 12, model=model, batch_size=8, data=data, run=run)


def begin(task, seed=0):
    """Parameters before training, and the inputs of a batch."""
    inputs = Inputs((), task.seed_data(seed), task.batch(0, seed))
    return jax.jit(task.init)(jax.random.key(0), inputs)[0], inputs


@pytest.mark.parametrize("relational", [True, False])
def test_the_loss_is_that_of_the_best_frames(config, relational):
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, relational=relational)
    )
    task = make_task(config)
    params, inputs = begin(task)
    videos = videos_of(config, 0)
    frames, lengths, labels = (jnp.asarray(leaf[inputs.batch]) for leaf in videos[:3])
    known = jnp.asarray(videos.descriptions), jnp.asarray(videos.graph)
    scores, _ = make_matcher(config.model).apply({"params": params}, frames, *known, train=False)
    best = best_frames_mean(scores, lengths, share=0.125)
    found = jax.jit(task.metrics)(params, (), inputs, None)
    np.testing.assert_allclose(found["loss"][0], video_loss(best, labels).sum(), rtol=1e-4)
    top = np.asarray(best).argmax(axis=1)
    assert int(found["accuracy"][0]) == np.asarray(labels)[np.arange(8), top].sum()
    (total, _), _ = jax.jit(task.loss_fn)(params, (), inputs, jax.random.key(1))
    chex.assert_trees_all_close(total, found["loss"][0], rtol=1e-5)


def test_the_graph_knows_the_training_videos_alone(config):
    videos = videos_of(config, 3)
    expected = co_occurrence_graph(jnp.asarray(videos.labels[:40]), neighbour_share=0.1)
    np.testing.assert_allclose(videos.graph, expected, atol=1e-6)
    assert np.abs(videos.graph - np.eye(20)).max() > 0.05
    assert videos.frames.shape == (61, MAX_TIME, 64)


def test_seeds_have_videos_of_their_own(config):
    task = make_task(config)
    one, other = task.seed_data(0), task.seed_data(1)
    chex.assert_trees_all_equal_shapes(one, other)
    assert np.abs(one[0] - other[0]).max() > 0.1


def test_videos_that_are_none_do_not_count(config):
    task = make_task(config)
    params, inputs = begin(task)
    whole = jax.jit(task.metrics)(params, (), inputs, None)
    padded = inputs._replace(batch=np.concatenate([inputs.batch, [-1, -1]]).astype(np.int32))
    chex.assert_trees_all_close(jax.jit(task.metrics)(params, (), padded, None), whole, rtol=1e-5)


def test_splits_do_not_share_videos(config):
    task = make_task(config)
    shown = [np.concatenate(task.eval_batches(name)) for name in ("train", "validation", "test")]
    assert np.concatenate(shown).tolist() == list(range(61))
    trained = np.concatenate([task.batch(step, 0) for step in range(10)])
    assert set(trained.tolist()) == set(range(40))


def test_intervals_are_of_the_actions_that_a_video_seems_to_have(config):
    params, _ = begin(make_task(config))
    streams = load(config, 0).test
    scores, chances = activations(config, params, 0, streams)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-4)
    found = locate(config, params, 0, streams)
    for video, its in enumerate(found):
        assert sorted(its) == np.flatnonzero(chances[video] >= 0.05).tolist()
        length = streams.lengths[video]
        for action, intervals in its.items():
            expected = find_intervals(scores[video, :length, action])
            assert [its[:2] for its in intervals] == [its[:2] for its in expected]
            for interval, plain in zip(intervals, expected, strict=True):
                assert interval.end <= length
                assert interval.score == pytest.approx(plain.score * chances[video, action])


def test_scores_are_means_of_the_table(config):
    task = make_task(config)
    run = dataclasses.replace(config.run, num_seeds=2)
    result = fit(task, make_optimizer(OptimizerConfig("adam", 0.01)), run)
    found = score(config, task, result)
    for place in range(2):
        params = jax.tree.map(lambda leaf, place=place: leaf[place], result.selected[0])
        table = precision_table(config, params, place, "test")
        assert found["test_map_50"][place] == pytest.approx(np.nanmean(table[0]))
        assert found["test_map_95"][place] == pytest.approx(np.nanmean(table[9]))
        assert found["test_map_average"][place] == pytest.approx(np.nanmean(table))
    assert not np.allclose(found["validation_map_average"], found["test_map_average"])


def test_a_few_steps_lower_the_loss_and_compile_once(config, tmp_path):
    task, profile = make_task(config), Profile(tmp_path)
    result = fit(task, make_optimizer(OptimizerConfig("adam", 0.01)), config.run, profile=profile)
    assert profile.recompilations == []
    before, inputs = begin(task)
    after = jax.tree.map(lambda leaf: leaf[0], result.selected[0])
    losses = [
        float(jax.jit(task.metrics)(params, (), inputs, None)["loss"][0])
        for params in (after, before)
    ]
    assert losses[0] < losses[1]


def test_runs_are_compared_by_seed(tmp_path, capsys):
    words = [*TINY, "--num-steps", "4", "--optimizer.schedule", "constant", "--num-seeds", "2"]
    summaries = []
    for name, its in (("one", []), ("two", ["--model.no-relational"])):
        options = ["--workdir", str(tmp_path / name), "--eval-every", "0", "--steps-per-call", "2"]
        summaries.append(run_experiment(EXPERIMENT, [*words, *options, *its]))
    values = [summary["metrics"]["test_map_average"]["values"] for summary in summaries]
    found = compare.gains(tmp_path / "one", tmp_path / "two")
    np.testing.assert_allclose(found["map_average"], np.subtract(*values))
    picture = tmp_path / "gains.png"
    compare.main([str(tmp_path / "one"), str(tmp_path / "two"), "--picture", str(picture)])
    assert "2 seeds" in capsys.readouterr().out
    assert picture.stat().st_size > 1000
    pictures = {path.stem for path in (tmp_path / "one" / "figures").iterdir()}
    assert pictures >= {"localization"}


def test_the_interval_is_students():
    values = np.random.default_rng(0).normal(0.3, 1, 9)
    low, high = compare.interval(values)
    test = stats.ttest_1samp(values, low)
    assert test.pvalue == pytest.approx(0.05)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert compare.interval(np.array([2.0, 2.0])) == (2.0, 2.0)
    with pytest.raises(InputError, match="one seed has no interval"):
        compare.interval(values[:1])


def test_folders_without_runs_are_named(tmp_path):
    with pytest.raises(SystemExit) as exit_info:
        compare.main([str(tmp_path), str(tmp_path)])
    assert "summary.json" in str(exit_info.value)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_their_models(name):
    config = PRESETS[name].config
    assert make_matcher(config.model).relational == ("independent" not in name)
    assert config.run.num_steps == config.optimizer.schedule_steps


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-test", "0"], "--num-test is 0"),
        (["--group-share", "2"], "--group-share is 2.0"),
        (["--frame-share", "0"], "--frame-share is 0.0: it must be above 0 and at most 1"),
        (["--model.features", "0"], "--model.features is 0"),
        (["--model.dropout", "1"], "--model.dropout is 1.0"),
        (["--model.threshold", "0"], "threshold is 0.0"),
        (["--model.neighbour-share", "2"], "--model.neighbour-share is 2.0"),
        (["--batch-size", "41"], "--batch-size is 41"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)
