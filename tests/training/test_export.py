"""Exported functions equal those that were trained, at sizes that were not known, elsewhere."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import load_run
from experiments.node_classification.model import make_network
from experiments.node_classification.train import main
from experiments.sequence_model import GRUConfig, SequenceModel, TCNConfig
from structdl.errors import InputError
from structdl.training.export import load_function, save_function, symbolic
from structdl.training.task import Inputs


@pytest.mark.parametrize("config", [GRUConfig(5), TCNConfig(4, 2, 3)])
def test_a_model_runs_at_any_batch_size_and_length(config, tmp_path):
    model, rng = SequenceModel(config, 3), np.random.default_rng(0)
    params = model.init(jax.random.key(0), jnp.zeros((1, 7, 2)), train=False)

    def apply(x, lengths):
        return model.apply(params, x, lengths, train=False)

    arguments = symbolic(("batch, 7, 2", "float32"), ("batch", "int32"))
    save_function(apply, arguments, tmp_path / "model.jax")
    loaded = load_function(tmp_path / "model.jax")
    for batch in (1, 2, 5):
        x = rng.normal(size=(batch, 7, 2)).astype(np.float32)
        lengths = rng.integers(1, 8, batch).astype(np.int32)
        np.testing.assert_array_equal(loaded(x, lengths), jax.jit(apply)(x, lengths))
    with pytest.raises(InputError, match=r"was exported for .*7,2"):
        loaded(np.zeros((2, 7, 3), np.float32), np.ones(2, np.int32))


def test_another_process_needs_jax_alone(tmp_path):
    kernel = jax.random.normal(jax.random.key(0), (3, 2))
    path, result = tmp_path / "function.jax", tmp_path / "result.npy"
    save_function(lambda x: jnp.tanh(x @ kernel), symbolic(("rows, 3", "float32")), path)
    program = f"""
import jax, numpy
from jax import export
call = export.deserialize(bytearray(open({str(path)!r}, "rb").read())).call
numpy.save({str(result)!r}, jax.jit(call)(numpy.ones((4, 3), numpy.float32)))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    np.testing.assert_allclose(np.load(result), np.tanh(np.ones((4, 3)) @ kernel), rtol=1e-6)


def test_what_is_no_exported_function_is_refused(tmp_path):
    path = tmp_path / "function.jax"
    with pytest.raises(InputError, match="cannot read"):
        load_function(path)
    save_function(jnp.sin, symbolic(("n", "float32")), path)
    whole = path.read_bytes()
    for damaged in (b"", b"nothing of the kind", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="holds no exported function"):
            load_function(path)


def test_a_size_that_must_be_known_and_a_folder_that_is_missing_are_named(tmp_path):
    with pytest.raises(InputError, match="symbolic"):
        save_function(lambda x: jnp.eye(int(x.shape[0])), symbolic(("n", "float32")), tmp_path)
    with pytest.raises(InputError, match="symbolic"):
        save_function(lambda x: x[list(range(x.shape[0]))], symbolic(("n", "float32")), tmp_path)
    with pytest.raises(InputError, match="cannot write"):
        save_function(jnp.sin, symbolic(("n", "float32")), tmp_path / "none" / "function.jax")
    with pytest.raises(InputError, match="names and numbers"):
        symbolic(("batch and 3", "float32"))
    with pytest.raises(InputError, match="unknown platform 'gpu'"):
        save_function(jnp.sin, symbolic(("n", "float32")), tmp_path / "f", platforms=["gpu"])


def test_a_mistake_in_the_function_is_its_own(tmp_path):
    with pytest.raises(TypeError, match="missing"):
        save_function(lambda x, y: x + y, [jnp.ones(3)], tmp_path / "function.jax")


def test_a_trained_run_is_exported(tmp_path):
    main(["karate", "--workdir", str(tmp_path / "run"), "--num-steps", "20"])
    config, task, params, _ = load_run(tmp_path / "run")
    network = make_network(config.model, num_classes=4)
    layout, weights = task.data.structure

    def logits(weights):
        return network.apply({"params": params}, task.data.features, layout, weights, train=False)

    save_function(logits, [weights], tmp_path / "gcn.jax")
    found = load_function(tmp_path / "gcn.jax")(weights)
    np.testing.assert_array_equal(found, jax.jit(logits)(weights))
    inputs = Inputs(task.data, task.seed_data(0), np.int32(2))
    correct, count = task.metrics(params, (), inputs, None)["accuracy"]
    right = (jnp.argmax(found, axis=1) == task.data.labels) & inputs.seed_data[2]
    assert (int(jnp.sum(right)), int(jnp.sum(inputs.seed_data[2]))) == (correct, count)
