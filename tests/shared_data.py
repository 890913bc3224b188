"""Where the real data lies beside the checkout; tests that need it skip with a reason where it does not."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("AFFINAGE_SHARED", Path(__file__).parents[2] / "shared")) / "data"
needs_shared_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data sets are not at {DATA}")
