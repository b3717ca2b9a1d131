"""How good translations are: BLEU, and the share that is the reference word by word."""

from collections.abc import Sequence

import jax
import numpy as np

from experiments.translation.data import load
from experiments.translation.presets import Config
from experiments.translation.translate import translate
from structdl.datasets.sentence_pairs import Sentence
from structdl.errors import InputError
from structdl.training.loop import Fit
from structdl.training.task import Task


def require_sacrebleu() -> None:
    """Raises InputError where BLEU cannot be computed."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        raise InputError(
            "BLEU is computed by sacrebleu, which is not installed: pip install 'structdl[text]'"
        ) from None


def bleu(translations: Sequence[Sentence], references: Sequence[Sentence]) -> float:
    """Corpus BLEU in percent, of words as they are; one reference each.

    sacrebleu's signature is nrefs:1|case:mixed|eff:no|tok:none|smooth:exp. The words of this
    experiment are in lower case and separated from marks, so that its figures compare with each
    other and not with BLEU of a text's own form.

    Raises:
      InputError: sacrebleu is not installed, or there is nothing to compare.

    Reference: Papineni, Roukos, Ward, Zhu (2002), "BLEU: a method for automatic evaluation of
    machine translation", ACL; Post (2018), "A call for clarity in reporting BLEU scores", WMT.
    """
    require_sacrebleu()
    from sacrebleu.metrics import BLEU

    if not references:
        raise InputError("no translations to compare: give one or more")
    written, meant = ([" ".join(words) for words in side] for side in (translations, references))
    # force: words that look tokenized are meant to
    return float(BLEU(tokenize="none", force=True).corpus_score(written, [meant]).score)


def accuracy(translations: Sequence[Sentence], references: Sequence[Sentence]) -> float:
    """The share of translations that are their references.

    >>> accuracy([("one", "two"), ("three",)], [("one", "two"), ("four",)])
    0.5
    """
    pairs = zip(translations, references, strict=True)
    return float(np.mean([written == meant for written, meant in pairs]))


def score(config: Config, task: Task, result: Fit) -> dict[str, np.ndarray]:
    """Of the test part, by greedy search and with beams, [num_seeds]; BLEU not of numbers."""
    corpus = load(config)
    sources, references = zip(*corpus.test, strict=True)
    measures = {"accuracy": accuracy} | ({} if config.dataset == "numbers" else {"bleu": bleu})
    found = {f"test_{way}_{name}": [] for name in measures for way in ("greedy", "beam")}
    for seed in range(len(result.seeds)):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], result.selected[0])
        for way, beams in (("greedy", 1), ("beam", config.beams)):
            written = translate(config, corpus, params, sources, beams=beams)
            for name, measure in measures.items():
                found[f"test_{way}_{name}"].append(measure(written, references))
    return {name: np.array(values) for name, values in found.items()}
