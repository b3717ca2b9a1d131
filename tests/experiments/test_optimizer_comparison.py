"""The comparison of optimizers: its search, its protocol, its scores, and what it refuses."""

import csv
import dataclasses
import itertools
import json
import math

import filelock
import numpy as np
import pytest
from matplotlib.figure import Figure

import experiments
from experiments.optimizer_comparison import figures, landscape_figures
from experiments.optimizer_comparison.compare import Config, compare, main
from experiments.optimizer_comparison.descent import Descent
from experiments.optimizer_comparison.landscape_runs import landscape_workload
from experiments.optimizer_comparison.landscapes import LANDSCAPES
from experiments.optimizer_comparison.lecture import (
    NOISES,
    Lecture,
    hold_lecture,
    overshoot,
    slowing,
    steps_until,
)
from experiments.optimizer_comparison.report import scores_table, write_report
from experiments.optimizer_comparison.search import (
    DEFAULT_SPACE,
    RATE,
    Range,
    optimizer_config,
)
from experiments.optimizer_comparison.study import SEED, TRIAL, Study, chosen_trial, run_study
from experiments.optimizer_comparison.summary import summarize
from experiments.optimizer_comparison.task_runs import task_workload
from experiments.optimizer_comparison.workload import Job, Workload, evaluates_objective
from structdl.errors import InputError
from structdl.training.logging import Stopwatch
from structdl.training.loop import fit
from structdl.training.measure import measure
from structdl.training.optimizers import make_optimizer
from structdl.training.run import DataConfig
from structdl.training.update_rules import UPDATE_RULES
from structdl.training.workdir import held

STEPS, TRIALS, SEEDS = 120, 4, 2
MUSIC = "polyphonic_music:rnn-chords"


def small_study(optimizers=("sgd", "adam"), **changes) -> Study:
    fields = {
        "workloads": [landscape_workload(STEPS)],
        "spaces": dict.fromkeys(optimizers, DEFAULT_SPACE),
        "num_trials": TRIALS,
        "num_seeds": SEEDS,
        "search_seed": 0,
    }
    return Study(**(fields | changes))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return run_study(small_study(), tmp_path_factory.mktemp("study"))


def test_ends_as_good_as_the_best_rank_alike(records):
    summary = summarize(records, 0.02)
    at = summary.problems.index("quadratic 1")
    best, goal = 1e-9, summary.targets["quadratic 1"]
    ends = {"sgd": [best, best + 1e-5 * goal], "adam": [best + 0.5 * goal, np.inf]}
    for name, values in ends.items():
        cell = summary.cells["quadratic 1", name]
        seeds = [
            record._replace(outcome=record.outcome._replace(selected=value))
            for record, value in zip(cell.seeds, values, strict=True)
        ]
        summary.cells["quadratic 1", name] = cell._replace(seeds=seeds)
    found = summary.ends()[:, at]
    np.testing.assert_array_equal(found, [[best, best], ends["adam"]])


class TestStudy:
    def test_every_optimizer_has_as_many_runs(self, records):
        for name, problem in itertools.product(("sgd", "adam"), LANDSCAPES):
            its = [
                each for each in records if (each.optimizer, each.job.problem) == (name, problem)
            ]
            trials = [record for record in its if record.phase == TRIAL]
            seeds = [record for record in its if record.phase == SEED]
            assert [record.job.seed for record in trials] == list(range(TRIALS))
            # never those of the search, and the same for all optimizers
            assert [record.job.seed for record in seeds] == [TRIALS, TRIALS + 1]
            best = min(trials, key=lambda record: record.outcome.selected)
            assert chosen_trial(records, problem, name).outcome.selected == best.outcome.selected
            chosen = chosen_trial(records, problem, name).job.hyperparams
            assert all(record.job.hyperparams == chosen for record in seeds)

    def test_a_run_is_the_descent_of_its_hyperparameters(self, records):
        """Of SGD on the bowl in closed form."""
        for record in records:
            if (record.optimizer, record.job.problem) == ("sgd", "quadratic 1"):
                rate = record.job.hyperparams["learning_rate"]
                steps = np.array(record.outcome.steps)
                if not record.outcome.diverged:
                    expected = (1 - rate) ** (2.0 * steps)
                    np.testing.assert_allclose(
                        record.outcome.validation, expected, rtol=1e-3, atol=1e-30
                    )
                    assert record.outcome.taken == record.outcome.evaluations == STEPS

    def test_a_diverged_trial_counts_and_is_never_chosen(self, records):
        gone = [record for record in records if record.outcome.diverged]
        assert {record.optimizer for record in gone} == {"sgd"}
        assert all(record.outcome.selected == math.inf for record in gone)
        summary = summarize(records, 0.02)
        counted = sum(cell.diverged[0] for cell in summary.cells.values())
        assert counted == len(gone) > 0
        assert all(not cell.chosen.outcome.diverged for cell in summary.cells.values())

    def test_an_interrupted_study_goes_on(self, records, tmp_path):
        calls, workload = [], landscape_workload(STEPS)

        def run(name, jobs, folder):
            calls.append(name)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return workload.run(name, jobs, folder)

        study = small_study(workloads=[workload._replace(run=run)])
        with pytest.raises(KeyboardInterrupt):
            run_study(study, tmp_path)
        assert calls == ["sgd", "sgd", "adam"]
        found = run_study(study, tmp_path)
        assert calls == ["sgd", "sgd", "adam", "adam", "adam"]
        timeless = [
            record._replace(outcome=record.outcome._replace(seconds=0, compile_seconds=0))
            for record in (*records, *found)
        ]
        assert timeless[: len(records)] == timeless[len(records) :]
        assert run_study(study, tmp_path) == found
        assert len(calls) == 5
        lines = (tmp_path / "runs" / "landscapes-sgd-trial.jsonl").read_text().splitlines()
        assert len(lines) == TRIALS * len(LANDSCAPES)
        assert not list((tmp_path / "unfinished").iterdir())

    def test_every_commit_that_a_study_was_computed_by_is_kept(self, tmp_path):
        workload = landscape_workload(STEPS)

        def cut(name, jobs, folder):
            if name == "adam":
                raise KeyboardInterrupt
            return workload.run(name, jobs, folder)

        with pytest.raises(KeyboardInterrupt):
            run_study(
                small_study(workloads=[workload._replace(run=cut)]),
                tmp_path,
                provenance={"commit": "old"},
            )
        for commit in ("new", "newest"):  # nothing is left for the last
            run_study(small_study(), tmp_path, provenance={"commit": commit})
        kept = json.loads((tmp_path / "provenance.json").read_text())
        assert kept == [{"commit": "old"}, {"commit": "new"}]

    def test_another_protocol_is_refused_and_nothing_is_overwritten(self, tmp_path):
        run_study(small_study(("sgd",)), tmp_path)
        kept = {file: file.read_bytes() for file in tmp_path.rglob("*.json*")}
        with pytest.raises(InputError, match="trials was 4 and is 5"):
            run_study(small_study(("sgd",), num_trials=5), tmp_path)
        assert {file: file.read_bytes() for file in tmp_path.rglob("*.json*")} == kept
        found = run_study(small_study(("sgd",), num_trials=5), tmp_path, overwrite=True)
        assert len(found) == len(LANDSCAPES) * 7

    def test_one_task_of_two_lengths_is_refused(self, tmp_path):
        study = small_study(workloads=[landscape_workload(STEPS), landscape_workload(2 * STEPS)])
        with pytest.raises(InputError, match="landscapes more than once"):
            run_study(study, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_folder_of_something_else_is_refused(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("years of work")
        for overwrite in (False, True):
            with pytest.raises(InputError, match="not a study"):
                run_study(small_study(), tmp_path, overwrite=overwrite)
        assert [file.name for file in tmp_path.iterdir() if file.suffix] == ["thesis.tex"]

    def test_a_folder_in_use_or_without_permission_is_refused(self, tmp_path, monkeypatch):
        with held(tmp_path), pytest.raises(InputError, match="another process is writing"):
            run_study(small_study(), tmp_path)

        def refused(*args, **kwargs):
            raise PermissionError("no permission to write")

        monkeypatch.setattr(filelock.FileLock, "acquire", refused)
        with pytest.raises(InputError, match="no permission to write"):
            run_study(small_study(), tmp_path)

    def test_a_problem_on_which_all_diverge_is_named(self, tmp_path):
        study = small_study(("sgd",), spaces={"sgd": {"learning_rate": Range(1e4, 1e5)}})
        with pytest.raises(InputError, match=r"quadratic 1 every trial .* sgd.learning_rate="):
            run_study(study, tmp_path)
        assert (tmp_path / "runs" / "landscapes-sgd-trial.jsonl").exists()

    def test_what_ends_a_study_ends_it_before_the_next_task(self, tmp_path):
        def run(name, jobs, folder):
            raise AssertionError("nobody reads what comes of this")

        late = Workload("late", ("late",), run, {"num_steps": 1})
        workloads, spaces = [landscape_workload(STEPS), late], {"sgd": {RATE: Range(1e4, 1e5)}}
        with pytest.raises(InputError, match="every trial of every optimizer diverged"):
            run_study(small_study(workloads=workloads, spaces=spaces), tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workload = task_workload(f"{MUSIC}:24", DataConfig())
    jobs = [Job(MUSIC, {"learning_rate": rate}, seed) for seed, rate in ((3, 1e-3), (4, 1e-2))]
    return workload, jobs, workload.run("adam", jobs, tmp_path_factory.mktemp("task"))


@pytest.mark.slow
class TestTasks:
    def test_a_job_is_the_presets_training_with_another_optimizer(self, trained):
        _, (_, job), (_, outcome) = trained
        experiment = experiments.get("polyphonic_music")
        config = experiment.presets["rnn-chords"].config
        config = dataclasses.replace(
            config,
            optimizer=dataclasses.replace(
                config.optimizer,
                name="adam",
                learning_rate=0.01,
                kwargs=UPDATE_RULES["adam"].kwargs,
            ),
            run=dataclasses.replace(config.run, num_steps=24, seed=job.seed, stopping="none"),
        )
        task = experiment.make_task(config)
        result = fit(task, make_optimizer(config.optimizer), config.run)
        assert outcome.taken == int(result.state.train.step[0]) == 24
        np.testing.assert_allclose(outcome.selected, min(outcome.validation), rtol=1e-6)
        np.testing.assert_allclose(
            measure(task, config.run, result, Stopwatch())["test_loss"], [outcome.test["loss"]]
        )
        assert set(outcome.test) == {"loss"}
        assert outcome.steps == list(range(2, 25, 2)), "ten or more validations"
        assert outcome.seconds > 0 < outcome.compile_seconds

    def test_an_interrupted_job_goes_on_from_its_checkpoint(self, trained, tmp_path, monkeypatch):
        workload, jobs, whole = trained
        from experiments.optimizer_comparison import task_runs

        def cut(*args, **kwargs):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(task_runs, "measure", cut)
            with pytest.raises(KeyboardInterrupt):
                workload.run("adam", jobs, tmp_path)
        saved = {file for file in tmp_path.rglob("*") if file.name == "24"}
        assert len(saved) == len(jobs)
        for before, after in zip(whole, workload.run("adam", jobs, tmp_path), strict=True):
            assert after._replace(seconds=0, compile_seconds=0) == before._replace(
                seconds=0, compile_seconds=0
            )

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("polyphonic_musik", "did you mean 'polyphonic_music'"),
            ("polyphonic_music:gru-chord", "did you mean 'gru-chords'"),
            (f"{MUSIC}:many", "EXPERIMENT:PRESET"),
            (f"{MUSIC}:0", "a step or more"),
        ],
    )
    def test_refusals(self, words, message):
        with pytest.raises(InputError, match=message):
            task_workload(words, DataConfig())


def test_only_line_searches_ask_for_the_objective():
    asks = {
        name: evaluates_objective(
            make_optimizer(dataclasses.replace(optimizer_config(name), learning_rate=0.1))
        )
        for name in ("sgd", "adam", "lbfgs")
    }
    assert asks == {"sgd": False, "adam": False, "lbfgs": True}


def test_evaluations_that_are_not_known_are_not_added_up(records):
    summary = summarize(
        [
            record._replace(outcome=record.outcome._replace(evaluations=None))
            if record.optimizer == "adam"
            else record
            for record in records
        ],
        0.02,
    )
    assert summary.cells["Beale", "adam"].spent("evaluations") is None
    taken = summary.cells["Beale", "sgd"].spent("taken")
    assert summary.cells["Beale", "sgd"].spent("evaluations") == taken > 0
    assert "| unknown |" in scores_table(summary)


@pytest.mark.slow
def test_what_the_lecture_says_holds():
    lecture = hold_lecture(tuple(UPDATE_RULES), 1000)
    bowl = LANDSCAPES["quadratic 1e2"]
    beyond = {
        name: overshoot(path.points, bowl.targets[0])
        for name, path in lecture.paths["quadratic 1e2"].items()
    }
    assert beyond["sgd"] == beyond["adagrad"] == 0.0
    assert beyond["momentum"] > 2 * max(beyond["rmsprop"], beyond["adam"])
    slopes = {
        name: path.points * [0.01, 1.0] for name, path in lecture.paths["quadratic 1e2"].items()
    }
    slow = {
        name: slowing(path, slopes[name]) for name, path in lecture.paths["quadratic 1e2"].items()
    }
    assert slow["adagrad"] < 0.5
    np.testing.assert_allclose(slow["sgd"], 1.0, rtol=1e-3)
    assert min(slow["rmsprop"], slow["adam"]) > 1
    left = {name: steps_until(path.heights, -1.0) for name, path in lecture.paths["saddle"].items()}
    assert left["sgd"] == max(left.values())
    assert max(left["rmsprop"], left["adam"]) < left["sgd"] / 3
    for steps in lecture.escapes.values():
        assert np.isinf(steps[0]).all(), "without noise"
        assert np.isfinite(steps[1:-1]).all()


@pytest.mark.slow
def test_the_command_line_leaves_a_report(tmp_path, capsys):
    config = Config(
        tasks=(f"landscapes:{STEPS}",),
        optimizers=("sgd", "lion"),
        trials=3,
        num_seeds=2,
        workdir=tmp_path,
    )
    compare(config)
    shown = capsys.readouterr().out
    assert "profile area" in shown
    assert str(tmp_path / "report.md") in shown
    report = (tmp_path / "report.md").read_text()
    for picture in [*tmp_path.glob("*.png"), tmp_path / "descent.gif"]:
        assert f"({picture.name})" in report
        assert picture.read_bytes()[:4] in (b"\x89PNG", b"GIF8")
    assert len(list(tmp_path.glob("*.png"))) == 8
    assert all(f"### {name}\n" in report for name in LANDSCAPES)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["problem"], row["optimizer"]) for row in rows] == list(
        itertools.product(LANDSCAPES, ("sgd", "lion"))
    )
    for row in rows:
        lines = (tmp_path / "runs" / f"landscapes-{row['optimizer']}-seed.jsonl").read_text()
        its = [json.loads(line) for line in lines.splitlines()]
        ends = [each["selected"] for each in its if each["problem"] == row["problem"]]
        if None not in ends:
            np.testing.assert_allclose(float(row["validation_mean"]), np.mean(ends))
            np.testing.assert_allclose(float(row["validation_std"]), np.std(ends, ddof=1))
    assert "and 0.02 of the way" in report


def test_a_report_without_landscapes_has_none_of_their_pictures(records, tmp_path):
    (tmp_path / "descent.gif").write_bytes(b"of the study before")
    summary = summarize([each for each in records if each.job.problem == "Beale"], 0.1)
    protocol = small_study(workloads=[]).protocol()
    write_report(summary, protocol, [], tmp_path)
    assert not (tmp_path / "descent.gif").exists()
    assert "and 0.1 of the way" in (tmp_path / "report.md").read_text()


def test_pictures_of_what_goes_wrong(records, tmp_path):
    """A seed that diverged before its first validation, and descents that never leave a saddle."""
    outcome = records[0].outcome._replace(
        steps=[], validation=[], selected=math.inf, test={}, taken=0, diverged=True
    )
    early = [
        record._replace(outcome=outcome) if record.phase == SEED and record.number == 0 else record
        for record in records
        if record.job.problem == "Beale"
    ]
    summary = summarize(early, 0.02)
    assert [cell.diverged[1] for cell in summary.of("Beale")] == [1, 1]
    figures.draw_study(summary, tmp_path)
    stays = np.full((len(NOISES), 3), math.inf)
    still = Descent(np.array([[1.0, 0.0], [0.5, 0.0]]), np.array([1.0, 0.25]), 1, False)
    lecture = Lecture({"saddle": {"sgd": still}}, {"sgd": stays})
    landscape_figures.draw_saddle(lecture, {"sgd": "C0"}, tmp_path / "saddle.png")
    assert len(list(tmp_path.glob("*.png"))) == 6


def test_legends_of_many_optimizers_stay_on_the_canvas(records, monkeypatch, tmp_path):
    """One problem, the narrowest picture there is."""
    names = [*UPDATE_RULES, "optimistic_gradient_descent", "schedule_free_adamw"]
    runs = [each for each in records if (each.job.problem, each.optimizer) == ("Beale", names[0])]
    copies = [record._replace(optimizer=name) for name in names for record in runs]
    drawn = {}
    monkeypatch.setattr(Figure, "savefig", lambda its, path, **_: drawn.update({path.stem: its}))
    figures.draw_study(summarize(copies, 0.02), tmp_path)
    figure = drawn["curves"]
    figure.draw_without_rendering()
    (legend,), (axis,) = figure.legends, figure.axes
    box, canvas = legend.get_window_extent(), figure.bbox
    assert [text.get_text() for text in legend.get_texts()] == names
    assert (box.min >= canvas.min).all()
    assert (box.max <= canvas.max).all()
    assert not box.overlaps(axis.get_window_extent())
    assert axis.get_window_extent().height > 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizers", "adm"], "did you mean 'adam'"),
        (["--search", "sgd.momentun=0.1:1"], "its arguments are"),
        (["--search", "sgd.learning_rate=2:1"], "nothing to search"),
        (["--trials", "0"], "--trials is 0"),
        (["--num-seeds", "0"], "--num-seeds is 0"),
        (["--search-seed", "-1"], "--search-seed is -1"),
        (["--target", "2"], "--target is 2.0"),
        (["--tasks", "landscapes:10"], "is 10: it must be at least"),
        (["--tasks", "landscapes:9999999999"], "it must be at most 2147483647"),
        (["--tasks", "landscapes:x"], "landscapes[:STEPS]"),
        (["--tasks", "landscapes:²"], "landscapes[:STEPS]"),
        (["--record", "../old"], "give a name"),
        (["--record", "/tmp"], "give a name"),
        (["--tasks", "node_classification:karate"], "validations"),
    ],
)
def test_what_can_be_mended_is_said_in_a_paragraph(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--workdir", str(tmp_path / "study")])
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "study" / "protocol.json").exists()
