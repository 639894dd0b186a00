"""What all tests share."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample files, which lies beside the project where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real sample files are not part of the project; their folder ../shared/data is absent")
    return SHARED_DATA
