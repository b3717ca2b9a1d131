"""Prepared sets of the tests lie in one temporary folder, not in the user's cache."""

import pytest


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(autouse=True)
def _data_dir(data_dir, monkeypatch):
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(data_dir))
