"""What holds for every test: `tiny` can be imported, and nothing waits for the hub or for a second thread."""

import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["AFFINAGE_CACHE"] = tempfile.mkdtemp(prefix="affinage-cache-")
sys.path.insert(0, str(Path(__file__).parent))
