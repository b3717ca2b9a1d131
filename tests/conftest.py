"""Strictness for every test: ranks, keys and warnings raise; CI skips no peer test."""

import os

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

hypothesis.settings.register_profile(
    "default", derandomize=True, max_examples=25, deadline=None, database=None
)
hypothesis.settings.load_profile("default")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With CI=true a peers test that is skipped fails: parity must not vanish unnoticed."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and item.get_closest_marker("peers"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: a peers test was skipped under CI: {call.excinfo.value}"
    return report
