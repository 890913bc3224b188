"""What a piece of code costs in memory, in a process of its own."""

import subprocess
import sys
from typing import NamedTuple

_PROGRAM = """
import sys
{imports}

def kibibytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

before = kibibytes("VmRSS")
try:
    said = repr({expression})
except InputError as error:
    said = type(error).__name__ + " " + str(error)
print((kibibytes("VmHWM") - before) // 1024, said)
"""


class Cost(NamedTuple):
    """What came of it, and the peak of memory above that of the imports."""

    mebibytes: int
    said: str
    """`repr` of the value, or kind and message of the InputError"""


def cost_of(expression: str, *, imports: str) -> Cost:
    """Evaluate `expression` after `imports`. Any other error than InputError fails the test."""
    program = _PROGRAM.format(expression=expression, imports=f"from affinage.errors import InputError\n{imports}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    peak, _, said = done.stdout.partition(" ")
    return Cost(int(peak), said.strip())
