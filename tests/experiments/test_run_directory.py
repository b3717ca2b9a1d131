"""What a run directory answers for: its config, its checkpoints, its pictures, and its links."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

import experiments
from experiments import load_run
from experiments.node_classification.train import EXPERIMENT, main
from structdl import files
from structdl.errors import InputError
from structdl.training import cli
from structdl.training.configs import from_dict, to_dict

WORDS = ["karate", "--num-steps", "20", "--steps-per-call", "10", "--log-every", "10"]
OTHER = ["--optimizer.learning-rate", "0.3"]


def run(workdir: Path, *options: str, experiment=EXPERIMENT) -> dict:
    return cli.run_experiment(experiment, [*WORDS, "--workdir", str(workdir), *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A finished run, not to be changed."""
    workdir = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STRUCTDL_DATA_DIR", str(data_dir))
        run(workdir)
    return workdir


@pytest.fixture(scope="module")
def figures_of_other(tmp_path_factory, data_dir):
    """The metrics of a run with the options OTHER."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STRUCTDL_DATA_DIR", str(data_dir))
        return run(tmp_path_factory.mktemp("other"), *OTHER)["metrics"]


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_preset_is_read_back_as_it_was_written():
    for name in experiments.names():
        for preset in experiments.get(name).presets.values():
            stored = json.loads(json.dumps(to_dict(preset.config)))
            assert from_dict(type(preset.config), stored) == preset.config


def test_overwrite_starts_again_where_checkpoints_lie_on_another_disk(
    workdir, figures_of_other, tmp_path
):
    elsewhere = (workdir / "checkpoints").rename(tmp_path / "elsewhere")
    (elsewhere / "notes.txt").write_text("mine")
    (workdir / "checkpoints").symlink_to(elsewhere)
    summary = run(workdir, *OTHER, "--overwrite")
    assert (summary["resumed"], summary["metrics"]) == (0, figures_of_other)
    assert (workdir / "checkpoints").is_symlink()
    assert (elsewhere / "notes.txt").read_text() == "mine"
    assert load_run(workdir)[0].optimizer.learning_rate == 0.3


def test_overwrite_says_what_it_cannot_remove(workdir, figures_of_other, monkeypatch, is_refused):
    def refuse(path, **_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(files.shutil, "rmtree", refuse)
    words = [*WORDS, *OTHER, "--overwrite", "--workdir", str(workdir)]
    is_refused(lambda argv: main(argv[:-2]), words, "Operation not permitted")
    monkeypatch.undo()
    with pytest.raises(InputError, match="no checkpoint"):  # half a run is not one
        load_run(workdir)
    assert run(workdir, *OTHER, "--overwrite")["metrics"] == figures_of_other
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["seed-0"]


def test_a_checkpoint_of_another_config_is_refused(workdir, tmp_path, is_refused):
    run(tmp_path / "other", *OTHER)
    shutil.rmtree(workdir / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", workdir / "checkpoints")
    with pytest.raises(InputError, match=r"learning-rate was 0\.3 and is 0\.01"):
        load_run(workdir)
    words = [*WORDS, "--num-steps", "40", "--workdir", str(workdir)]
    is_refused(lambda argv: main(argv[:-2]), words, "--optimizer.learning-rate was 0.3 and is 0.01")


def test_a_finished_run_without_its_checkpoints_answers_for_its_own_config(
    workdir, capsys, is_refused
):
    shutil.rmtree(workdir / "checkpoints")
    before = content_of(workdir)
    main([*WORDS, "--workdir", str(workdir)])
    assert "finished before" in capsys.readouterr().out
    for options, message in (
        (OTHER, "--optimizer.learning-rate was 0.01 and is 0.3"),
        (["--dataset", "cora"], "--dataset was 'karate' and is 'cora'"),
        (["--num-steps", "40"], "its checkpoints are gone"),
    ):
        words = [*WORDS, *options, "--workdir", str(workdir)]
        is_refused(lambda argv: main(argv[:-2]), words, message)
    assert content_of(workdir) == before
    # a summary answers for the config in it, whatever lies beside
    config = json.loads((workdir / "config.json").read_text())
    config["config"]["optimizer"]["learning_rate"] = 0.3
    (workdir / "config.json").write_text(json.dumps(config))
    words = [*WORDS, *OTHER, "--workdir", str(workdir)]
    is_refused(lambda argv: main(argv[:-2]), words, "learning-rate was 0.01 and is 0.3")


def test_a_run_killed_before_its_first_checkpoint_leaves_no_rows(workdir, figures_of_other):
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "summary.json").unlink()
    (workdir / "metrics.jsonl").write_text('{"seed": 7, "step": 990, "train_loss": 1.0}\n')
    (workdir / "figures.01234567.part").mkdir()
    assert run(workdir, *OTHER)["metrics"] == figures_of_other
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(row["seed"], row["step"]) for row in rows] == [(0, 10), (0, 20)]
    assert not list(workdir.glob("*.part"))


def test_a_run_of_the_first_version_is_found_finished_and_its_pictures_completed(workdir, capsys):
    """Its summary lists no pictures, its config no commits, and its checkpoint has no checksums."""
    for name, key in (("summary.json", "figures"), ("config.json", "commits")):
        stored = json.loads((workdir / name).read_text())
        del stored[key]
        (workdir / name).write_text(json.dumps(stored))
    for file in (workdir / "checkpoints").rglob("checksums.json"):
        file.unlink()
    run(workdir)
    assert "finished before" in capsys.readouterr().out
    (workdir / "figures" / "embedding.png").write_bytes(b"")
    run(workdir)
    assert (workdir / "figures" / "embedding.png").stat().st_size


def test_completing_pictures_trains_nothing(workdir, monkeypatch):
    before = json.loads((workdir / "config.json").read_text())["commits"]
    (workdir / "figures" / "embedding.png").unlink()
    monkeypatch.setattr(cli.ledger, "provenance", lambda directory: "0123456789ab")
    assert run(workdir)["commits"] == before
    assert run(workdir, "--num-steps", "40")["commits"] == [*before, "0123456789ab"]


@pytest.mark.parametrize(
    "content", [b"[]", b'{"metrics": 3}', b'{"metrics": {}}', b'{"metrics": {}, "figures": 3}']
)
def test_a_damaged_summary_is_refused_by_name(workdir, content, is_refused):
    (workdir / "summary.json").write_bytes(content)
    words = [*WORDS, "--workdir", str(workdir)]
    is_refused(lambda argv: main(argv[:-2]), words, "summary.json")


def test_pictures_that_are_missing_are_drawn_by_the_same_command(workdir, finished, capsys):
    summary = json.loads((finished / "summary.json").read_text())
    picture = finished / "figures" / "embedding.png"
    for damage in ("missing", "empty", "no room"):
        (workdir / "figures" / "embedding.png").unlink()
        if damage == "empty":
            (workdir / "figures" / "embedding.png").touch()
        if damage == "no room":
            shutil.rmtree(workdir / "figures")
            (workdir / "summary.json").unlink()

            def draw(config, task, result, rows, folder):
                (folder / "embedding.png").touch()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            with pytest.raises(InputError, match="No space left"):
                run(workdir, experiment=EXPERIMENT._replace(draw=draw))
            assert not (workdir / "figures").exists()
        again = run(workdir)
        assert again["metrics"] == summary["metrics"]
        assert (workdir / "figures" / "embedding.png").read_bytes() == picture.read_bytes()
    capsys.readouterr()
    run(workdir)
    assert "finished before" in capsys.readouterr().out


DAMAGED = {
    "not UTF-8": b"\xff\xfe{}",
    "nested": b"[" * 100_000,
    "a list": b"[]",
    "null": b"null",
    "no config": b'{"experiment": "node_classification", "preset": "karate"}',
    "another experiment": b'{"experiment": "../evil", "preset": "a", "config": {}}',
    "a number for a name": b'{"experiment": 3, "preset": "karate", "config": {}}',
}
WRONG = {"dataset": 3, "run": None, "optimizer": [], "data": "here", "model": {"type": "Evil"}}
WRONG_IN_RUN = {
    "num_steps": "20",
    "seed": 1.5,
    "num_seeds": 2**32,
    "workdir": 5,
    "parallel": "all",
    "overwrite": 1,
}


def damaged_configs(stored: dict):
    yield from DAMAGED.items()
    for name, value in WRONG.items():
        yield name, json.dumps(stored | {"config": stored["config"] | {name: value}}).encode()
    for name, value in WRONG_IN_RUN.items():
        config = stored["config"] | {"run": stored["config"]["run"] | {name: value}}
        yield f"run.{name}", json.dumps(stored | {"config": config}).encode()


def test_a_damaged_config_is_refused_by_name(workdir, is_refused):
    stored = json.loads((workdir / "config.json").read_text())
    for damage, content in damaged_configs(stored):
        (workdir / "config.json").write_bytes(content)
        with pytest.raises(InputError, match=r"config\.json|unknown experiment"):
            pytest.fail(f"{damage}: {load_run(workdir)[0]}")
        message = "config.json" if "another" not in damage else "holds a run of ../evil"
        words = [*WORDS, "--workdir", str(workdir)]
        is_refused(lambda argv: main(argv[:-2]), words, message)


def test_load_run_prepares_nothing_in_a_folder_that_only_the_config_names(workdir, tmp_path):
    foreign, own = tmp_path / "foreign", tmp_path / "own"
    stored = json.loads((workdir / "config.json").read_text())
    stored["config"]["data"]["dir"] = str(foreign)
    (workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=f"not prepared in {foreign}"):
        load_run(workdir)
    assert not foreign.exists()
    load_run(workdir, data_dir=own)
    own.rename(foreign)  # where it is prepared already it is read
    assert load_run(workdir)[0].data.dir == foreign


def test_no_link_in_the_folder_leads_a_run_out_of_it(workdir, tmp_path):
    outside = tmp_path / "outside"
    (outside / "figures").mkdir(parents=True)
    names = ["config.json.part", "summary.json.part", "metrics.tmp", "config.json"]
    for name in [*names, "figures/embedding.png"]:
        (outside / name).write_text("precious")
    (workdir / "config.json").replace(outside / "config.json")
    (workdir / "summary.json").unlink()
    shutil.rmtree(workdir / "figures")
    for name in [*names, "figures"]:
        (workdir / name).symlink_to(outside / name)
    before = content_of(outside)
    run(workdir)
    assert content_of(outside) == before
    assert (workdir / "figures" / "embedding.png").stat().st_size
    (workdir / "metrics.jsonl").replace(outside / "metrics.jsonl")
    (workdir / "metrics.jsonl").symlink_to(outside / "metrics.jsonl")
    before = content_of(outside)
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        run(workdir, "--num-steps", "40")
    assert content_of(outside) == before
