"""What all tests share."""

import os
import signal
from pathlib import Path

import array_checks
import jax
import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

array_checks.spare_others()

# A process that was started in the background ignores interrupts, and so would all tests of them.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """Keeps what XLA has compiled, since many tests compile the same; a folder for each process, which share badly."""
    folder = config.cache.mkdir(f"xla-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample files, which lies beside the project where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real sample files are not part of the project; their folder ../shared/data is absent")
    return SHARED_DATA
