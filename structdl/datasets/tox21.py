"""Tox21: 7831 molecules as graphs, and which of 12 toxicity assays each is active in.

Reference: Wu et al. (2018), "MoleculeNet: A benchmark for molecular machine learning",
arXiv:1703.00564. The assays are those of the Tox21 Data Challenge 2014; scaffolds are those of
Bemis, Murcko (1996), "The properties of known drugs. 1. Molecular frameworks", J. Med. Chem. 39.
"""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from structdl.datasets.prepare import RawFile, prepare, url_infos
from structdl.datasets.unpacking import read_gzip
from structdl.errors import InputError, require_at_most

MAX_UNPACKED_BYTES = 1 << 22  # of the table, which has 720 kB
MAX_SMILES = 1000  # characters, since RDKit recurses over a molecule; Tox21 has 342 at most

RAW_FILE = RawFile(
    "tox21_7831.csv.gz",
    "https://raw.githubusercontent.com/oxpig/topological-pretraining/"
    "d7696977a5caafeb590c0580ae79c5a98e825a08/data/tox21.csv.gz",
    126277,
    "ade7b50c096de117f7c1a52b267224bf2603e730cd3d0bf12289731d000a6894",
)
TASKS = (
    *("NR-AR", "NR-AR-LBD", "NR-AhR", "NR-Aromatase", "NR-ER", "NR-ER-LBD", "NR-PPAR-gamma"),
    *("SR-ARE", "SR-ATAD5", "SR-HSE", "SR-MMP", "SR-p53"),
)
NO_LABEL = -1

# Of these Tox21 has nine atoms or more; the next class is for all other elements.
ELEMENTS = (
    *("C", "N", "O", "F", "P", "S", "Cl", "Br", "I"),
    *("B", "Na", "Si", "Cr", "Zn", "As", "Sn", "Hg"),
)
HYBRIDIZATIONS = ("SP", "SP2", "SP3", "SP3D", "SP3D2")  # the next class is for all others
BOND_TYPES = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")

# The columns of `atoms` and `bond_features`: name and number of categories.
ATOM_CATEGORIES = {
    "element": len(ELEMENTS) + 1,
    "degree": 7,  # bonds to atoms that are nodes; 6 stands for 6 and more
    "charge": 7,  # formal charge + 3, -3 to 3
    "hydrogens": 5,  # those that are not nodes; 4 stands for 4 and more
    "hybridization": len(HYBRIDIZATIONS) + 1,
    "aromatic": 2,
}
BOND_CATEGORIES = {"type": len(BOND_TYPES), "conjugated": 2, "in_ring": 2}


class Molecule(NamedTuple):
    """A molecule without its implicit hydrogens, int32; salts are graphs of several components."""

    atoms: np.ndarray  # [num_atoms, 6], categories in the order of ATOM_CATEGORIES
    bonds: np.ndarray  # [num_bonds, 2], each bond once, the smaller atom first
    bond_features: np.ndarray  # [num_bonds, 3], categories in the order of BOND_CATEGORIES


class Tox21(NamedTuple):
    """All molecules, in the order of the file."""

    molecules: list[Molecule]
    labels: np.ndarray  # [num_molecules, 12], int32: 1 active, 0 not, NO_LABEL not measured
    scaffolds: np.ndarray  # [num_molecules], int32, equal where the Bemis-Murcko scaffolds are
    smiles: list[str]


class Split(NamedTuple):
    """Numbers of molecules, ascending, int32."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class MoleculeNetBuilder(tfds.core.GeneratorBasedBuilder):
    """One example a molecule; preparing needs RDKit, reading what is prepared does not."""

    name = "moleculenet"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="tox21"),)

    @property
    def url_infos(self) -> dict[str, tfds.download.checksums.UrlInfo]:
        return url_infos([RAW_FILE])

    def _info(self) -> tfds.core.DatasetInfo:
        atom_columns, bond_columns = len(ATOM_CATEGORIES), len(BOND_CATEGORIES)
        features = {
            "atoms": tfds.features.Tensor(shape=(None, atom_columns), dtype=np.int32),
            "bonds": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
            "bond_features": tfds.features.Tensor(shape=(None, bond_columns), dtype=np.int32),
            "labels": tfds.features.Tensor(shape=(len(TASKS),), dtype=np.int32),
            "scaffold": tfds.features.Scalar(dtype=np.int32),
            "smiles": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Molecules and the outcomes of 12 toxicity assays, some not measured.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://moleculenet.org",
            disable_shuffling=True,  # splits are numbers of molecules in the file's order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"full": self._generate_examples(Path(dl_manager.download(RAW_FILE.url)))}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(read_raw(path))


def load(
    *, data_dir: str | os.PathLike | None = None, raw_dir: str | os.PathLike | None = None
) -> Tox21:
    """Returns the 7831 molecules with their labels; `prepare` explains the folders.

    A label that was not measured is NO_LABEL (-1, as a mask `labels >= 0`), not NaN, which would
    reach the gradients through a masked loss.

    Raises:
      InputError: the data cannot be had (see `prepare`), is not what it should be, or is not
        prepared yet and RDKit is not installed.
    """
    builder = prepare(
        MoleculeNetBuilder, "tox21", raw_files=[RAW_FILE], raw_dir=raw_dir, data_dir=data_dir
    )
    source = builder.as_data_source("full")
    examples = source.__getitems__(range(len(source)))
    return Tox21(
        [Molecule(*(example[field] for field in Molecule._fields)) for example in examples],
        np.stack([example["labels"] for example in examples]),
        np.array([example["scaffold"] for example in examples], np.int32),
        [example["smiles"].decode() for example in examples],
    )


def random_split(num_molecules: int, *, seed: int) -> Split:
    """80 % of the molecules for training, 10 % for validation, 10 % for test, at random.

    >>> [len(part) for part in random_split(7831, seed=0)]
    [6264, 783, 784]
    """
    order = np.random.default_rng(seed).permutation(num_molecules).astype(np.int32)
    bounds = [int(0.8 * num_molecules), int(0.9 * num_molecules)]
    return Split(*(np.sort(part) for part in np.split(order, bounds)))


def scaffold_split(scaffolds: np.ndarray) -> Split:
    """80/10/10 where no scaffold is in two parts: the test asks for molecules of new kinds.

    Groups of equal scaffold are taken from the largest to the smallest (of equal ones the first in
    the file), each into training if it still fits, else validation, else test.

    Reference: Wu et al. (2018), arXiv:1703.00564, Section 3.2.
    """
    _, owner, counts = np.unique(scaffolds, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(owner, kind="stable"), np.cumsum(counts)[:-1])
    parts = ([], [], [])
    room = [int(0.8 * len(owner)), int(0.9 * len(owner)) - int(0.8 * len(owner)), len(owner)]
    for group in sorted(members, key=lambda group: (-len(group), group[0])):
        part = next(part for part in range(3) if len(group) <= room[part])
        parts[part].extend(group)
        room[part] -= len(group)
    return Split(*(np.sort(np.array(part, np.int32)) for part in parts))


def read_raw(path: Path) -> Iterator[dict[str, Any]]:
    """Reads the gzipped table, with the columns TASKS and SMILES, and yields its examples.

    In rows with `rdkit_pass` False, of which Tox21 has nine, RDKit does not check valences: eight
    of those molecules have aluminium with six bonds, which its rules do not know.

    Raises:
      InputError: RDKit is not installed, or names the line, the column and the value that is wrong.
    """
    murcko = _import_rdkit()[2]
    groups = {}
    for where, row in _read_rows(path):
        labels = [_LABELS.get(row[task]) for task in TASKS]
        if None in labels:
            task = TASKS[labels.index(None)]
            raise InputError(f"{where}: {task} is {row[task]!r}, expected 0, 1 or nothing")
        try:
            molecule = _parse(row["SMILES"], check_valence=row.get("rdkit_pass") != "False")
            example = _molecule(molecule, row["SMILES"])._asdict()
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        scaffold = murcko.MurckoScaffoldSmiles(mol=molecule)
        yield example | {
            "labels": np.array(labels, np.int32),
            "scaffold": groups.setdefault(scaffold, len(groups)),
            "smiles": row["SMILES"],
        }


def molecule_from_smiles(smiles: str) -> Molecule:
    """Reads a molecule with RDKit.

    Raises:
      InputError: not a molecule, a bond of no type in BOND_TYPES, or RDKit is not installed.
    """
    return _molecule(_parse(smiles, check_valence=True), smiles)


_LABELS = {"": NO_LABEL, "0": 0, "0.0": 0, "1": 1, "1.0": 1}


def _read_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows, each with the words that name its place."""
    try:
        text = read_gzip(path, MAX_UNPACKED_BYTES).decode()
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns = reader.fieldnames or []
        missing = [column for column in ("SMILES", *TASKS) if column not in columns]
        if missing:
            raise InputError(f"{path}: column {missing[0]} is missing, found {columns[:20]}")
        for row in reader:
            where = f"{path} line {reader.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: expected {len(columns)} values, as in line 1")
            yield where, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable gzipped table ({error})") from error


def _import_rdkit() -> tuple[Any, Any, Any]:
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem.Scaffolds import MurckoScaffold
    except ImportError as error:
        raise InputError(
            "molecules are read from SMILES by RDKit, which is not installed:"
            " pip install -e '.[chem]'"
        ) from error
    return Chem, rdBase, MurckoScaffold


def _parse(smiles: str, *, check_valence: bool) -> Any:
    """An RDKit molecule with at least one atom."""
    chem, base, _ = _import_rdkit()
    require_at_most("number of characters of a SMILES", len(smiles), MAX_SMILES)
    with base.BlockLogs():  # or it prints to stderr what is wrong, and warnings
        molecule = chem.MolFromSmiles(smiles, sanitize=check_valence)
        if molecule is not None and not check_valence:
            molecule.UpdatePropertyCache(strict=False)
            steps = chem.SanitizeFlags.SANITIZE_ALL ^ chem.SanitizeFlags.SANITIZE_PROPERTIES
            if chem.SanitizeMol(molecule, steps, catchErrors=True):
                molecule = None
    if molecule is None or not molecule.GetNumAtoms():
        raise InputError(f"SMILES {smiles!r} is no molecule to RDKit: mend it or remove the row")
    return molecule


def _molecule(molecule: Any, smiles: str) -> Molecule:
    atoms = [
        (
            _place(atom.GetSymbol(), ELEMENTS),
            min(atom.GetDegree(), 6),
            min(max(atom.GetFormalCharge(), -3), 3) + 3,
            min(atom.GetTotalNumHs(), 4),
            _place(str(atom.GetHybridization()), HYBRIDIZATIONS),
            atom.GetIsAromatic(),
        )
        for atom in molecule.GetAtoms()
    ]
    bonds, bond_features = [], []
    for bond in molecule.GetBonds():
        bond_type = _place(str(bond.GetBondType()), BOND_TYPES)
        if bond_type == len(BOND_TYPES):
            known = ", ".join(BOND_TYPES)
            raise InputError(f"SMILES {smiles!r} has a {bond.GetBondType()} bond, known: {known}")
        bonds.append(sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())))
        bond_features.append((bond_type, bond.GetIsConjugated(), bond.IsInRing()))
    return Molecule(
        np.array(atoms, np.int32),
        np.array(bonds, np.int32).reshape(-1, 2),
        np.array(bond_features, np.int32).reshape(-1, len(BOND_CATEGORIES)),
    )


def _place(value: str, known: tuple[str, ...]) -> int:
    return known.index(value) if value in known else len(known)
