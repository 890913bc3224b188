"""Keeps glibc from giving big buffers back to the kernel at every step, which costs a page-fault storm in training."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_big_buffers() -> bool:
    """Tell glibc to serve every allocation from its heap and to keep what is freed; True where it agreed.

    Must run before the buffers are allocated. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):
        return False
