"""Freed memory that is kept."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from laconic.engines._memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        first, second = np.ones(2**21, np.float32), np.ones(2**21, np.float32)
        del first, second
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(keep_freed_memory(), faults() if faults() else 0)
"""


def run(**environment):
    """What a fresh process was told, and how many pages it had to have cleared."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    told, faults = done.stdout.split()
    return told == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc, Linux's, is told")
def test_memory_is_taken_again():
    """Buffers of a model's size come from what was freed before: no page is cleared for them."""
    kept, faults = run()
    assert kept
    assert faults < 1000  # of 50 x 2 x 2,048


def test_the_environment_comes_first():
    """Who has set glibc up is left alone."""
    for name, value in (
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1000000"),
        ("MALLOC_TRIM_THRESHOLD_", "1000000"),
    ):
        kept, _ = run(**{name: value})
        assert not kept
