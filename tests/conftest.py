"""What all tests share."""

import signal
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# A process that was started in the background ignores interrupts, and so would all tests of them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample files, which lies beside the project where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real sample files are not part of the project; their folder ../shared/data is absent")
    return SHARED_DATA
