"""What the builders of texts share: a text's form on disk, and reading it back."""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.sequences import Splits
from structdl.datasets.vocabulary import Text


class TextBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One example a split: all of its symbols as numbers; the vocabulary is in the metadata.

    A subclass names its set in `_info` and hands its text on in `_split_generators`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _text_info(self, description: str, homepage: str | None = None) -> tfds.core.DatasetInfo:
        ids = tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding="bytes")
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict({"ids": ids}),
            homepage=homepage,
            metadata=tfds.core.MetadataDict(),
        )

    def _splits_of(self, text: Text) -> dict[str, Iterator]:
        self.info.metadata["vocabulary"] = text.vocabulary
        return {split: self._generate_examples(getattr(text, split)) for split in Splits._fields}

    def _generate_examples(self, ids: np.ndarray) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        yield 0, {"ids": ids}


def read_text(builder: TextBuilder) -> Text:
    """The text that a builder has prepared."""
    parts = (builder.as_data_source(split)[0]["ids"] for split in Splits._fields)
    return Text(*parts, tuple(builder.info.metadata["vocabulary"]))
