"""Generated graphs for inductive learning with several labels a node, small and large.

They stand in for graphs that are too large to ship; `simulate_block_model` says how they are made.
"""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import prepare
from structdl.datasets.simulate_block_model import BlockModel, simulate_block_model
from structdl.errors import require_known

SEED = 0  # of both graphs: like a published set, they are always the same
EDGES_PER_EXAMPLE = 200_000

# Labels and features are as many as those of the proteins in Hamilton et al. (2017),
# arXiv:1706.02216; undirected edges.
_SHARED = {
    "num_communities": 20,
    "num_labels": 121,
    "num_features": 50,
    "exponent": 2.5,
    "mixing": 0.3,
    "feature_noise": 2.0,
}
PARAMETERS = {
    "small": {"num_nodes": 2_000, "num_edges": 20_000, **_SHARED},
    "large": {"num_nodes": 200_000, "num_edges": 10_000_000, **_SHARED},
}
_PARTS = ("train", "validation", "test")


class BlockModelBuilder(tfds.core.GeneratorBasedBuilder):
    """An example holds a stretch of the edges and one of the nodes; all in order are the graph."""

    name = "block_model"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in PARAMETERS)

    def _info(self) -> tfds.core.DatasetInfo:
        shared = PARAMETERS[self.builder_config.name]
        columns = {
            "edges": ((None, 2), np.int32),
            "features": ((None, shared["num_features"]), np.float32),
            "labels": ((None, shared["num_labels"]), np.uint8),
            "part": ((None,), np.uint8),  # 0 train, 1 validation, 2 test
        }
        features = {
            # As bytes: with TFDS's lists of numbers preparing `large` takes twice as long.
            name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")
            for name, (shape, dtype) in columns.items()
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Degree-corrected block model with overlapping communities.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # examples are put together in their order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"full": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        graph = simulate_block_model(SEED, **PARAMETERS[self.builder_config.name])
        part = np.zeros(len(graph.labels), np.uint8)
        for number, name in enumerate(_PARTS):
            part[getattr(graph, name)] = number
        columns = {
            "edges": graph.edges,
            "features": graph.features,
            "labels": graph.labels,
            "part": part,
        }
        num_examples = len(graph.edges) // EDGES_PER_EXAMPLE + 1
        stretches = [np.array_split(column, num_examples) for column in columns.values()]
        for number, example in enumerate(zip(*stretches, strict=True)):
            yield number, dict(zip(columns, example, strict=True))


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
) -> BlockModel:
    """Returns the graph `name`, small or large; it needs neither raw files nor the network.

    Inductive learning trains on `edges_among(graph.edges, graph.train, num_nodes)` and on features
    and labels of the training nodes alone, and is tested on the whole graph.

    Raises:
      InputError: unknown name, or the data folder cannot be written.
    """
    require_known("block model", name, PARAMETERS)
    builder = prepare(BlockModelBuilder, name, raw_dir=raw_dir, data_dir=data_dir)
    source = builder.as_data_source("full")
    examples = source.__getitems__(range(len(source)))
    edges, features, labels, part = (
        np.concatenate([example[column] for example in examples])
        for column in ("edges", "features", "labels", "part")
    )
    parts = (np.flatnonzero(part == number).astype(np.int32) for number in range(len(_PARTS)))
    return BlockModel(edges, features, labels, *parts)
