"""The most memory that this process has held."""

import re
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """Largest resident set of this process since it started its program.

    Linux says it in /proc. `ru_maxrss`, asked elsewhere, may hold there what the parent process had when it started
    this one, which a benchmark that has models in memory must not count.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
