"""The ledger: rows are replaced by key, uncommitted code is refused, tables show the gap."""

import subprocess

import pytest

from structdl.errors import InputError
from structdl.training import ledger

ROW = {
    "system": "GCN",
    "preset": "gcn-cora",
    "dataset": "Cora, fixed split",
    "metric": "test_accuracy",
    "published": 0.815,
    "mean": 0.8149,
    "std": 0.0061,
    "seeds": 100,
    "steps": 199.6,
    "seconds": 61.4,
    "device": "two cores",
    "proxy": False,
}


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def test_a_row_replaces_that_of_its_key_and_leaves_the_others(tmp_path):
    ledger.record(tmp_path, [ROW, ROW | {"device": "a card"}])
    ledger.record(tmp_path, [ROW | {"mean": 0.9}])
    rows = ledger.read_rows(tmp_path)
    assert {row["device"]: row["mean"] for row in rows} == {"two cores": 0.9, "a card": 0.8149}


def test_code_that_is_not_committed_is_refused(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "model.py").write_text("width = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    ledger.require_clean_tree(tmp_path)
    head = ledger.provenance(tmp_path)
    assert len(head) == 12
    (tmp_path / "results.json").write_text("[]")
    (tmp_path / "README.md").write_text("table")
    ledger.require_clean_tree(tmp_path)
    assert ledger.provenance(tmp_path) == head
    (tmp_path / "model.py").write_text("width = 2\n")
    assert ledger.provenance(tmp_path) == head + ledger.CHANGED
    with pytest.raises(InputError, match=r"model\.py is not committed"):
        ledger.require_clean_tree(tmp_path)


def test_without_a_checkout_nothing_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(InputError, match="needs a git checkout"):
        ledger.require_clean_tree(tmp_path)
    assert ledger.provenance(tmp_path) == ""


def test_the_table_prints_percent_and_the_gap():
    line = ledger.format_table([ROW]).splitlines()[-1]
    assert "| 81.5 % | 81.49 ± 0.61 % | -0.01 | 100 | 200 | 61 | two cores |" in line
    nothing_published = ledger.format_table([ROW | {"published": None}]).splitlines()[-1]
    assert "|  | 81.49 ± 0.61 % |  |" in nothing_published


@pytest.mark.parametrize(
    ("metric", "shown"),
    [("test_average_precision", "81.49 ± 0.61 %"), ("test_loss", "0.81 ± 0.01")],
)
def test_only_shares_are_printed_in_percent(metric, shown):
    line = ledger.format_table([ROW | {"metric": metric}]).splitlines()[-1]
    assert f"| {shown} |" in line


def test_a_small_loss_is_not_printed_as_none():
    row = ROW | {"metric": "test_loss", "published": 5.8e-5, "mean": 4.321e-5, "std": 1.23e-6}
    assert "| 5.8e-05 | 4.32e-05 ± 1.2e-06 | -1.5e-05 |" in ledger.format_table([row])
