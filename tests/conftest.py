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
    """With CI=true a test whose peer is not installed fails: parity must not vanish unnoticed."""
    report = yield
    absent = report.skipped and "could not import" in str(report.longrepr)
    if absent and os.environ.get("CI") == "true" and item.get_closest_marker("peers"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: a peers test was skipped under CI: {call.excinfo.value}"
    return report


def pytest_terminal_summary(terminalreporter):
    """The time of each test file, slowest first."""
    seconds = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                file = report.nodeid.split("::")[0]
                seconds[file] = seconds.get(file, 0) + report.duration
    terminalreporter.section("seconds of each test file")
    for file, duration in sorted(seconds.items(), key=lambda item: -item[1]):
        terminalreporter.write_line(f"{duration:8.1f}  {file}")
