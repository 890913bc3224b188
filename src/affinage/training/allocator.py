"""Keeps glibc from giving big buffers back to the kernel at every step, which costs a page-fault storm in training."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14
_RESERVED_BYTES = 4 * 2**30
"""Of address space, not of memory: what is allocated first comes from huge pages, where the kernel grants them."""


def keep_big_buffers() -> bool:
    """Tell glibc to serve every allocation from one heap, to keep what is freed and to ask for huge pages.

    True where it agreed. Must run before the buffers are allocated. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        # One arena: that of another thread (autograd's) would give whole pieces of itself back.
        kept = all([libc.mallopt(_M_MMAP_MAX, 0), libc.mallopt(_M_TRIM_THRESHOLD, -1), libc.mallopt(_M_ARENA_MAX, 1)])
    except (OSError, AttributeError):
        return False
    if kept:
        _ask_for_huge_pages(libc)
    return kept


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Reserve the next part of the heap, mark it, give it back: later allocations are cut from there."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = libc.malloc(_RESERVED_BYTES)
    if start is None:
        return
    page = 2 * 2**20
    aligned = -(-start // page) * page
    libc.madvise(aligned, (start + _RESERVED_BYTES - aligned) // page * page, _MADV_HUGEPAGE)
    libc.free(start)
