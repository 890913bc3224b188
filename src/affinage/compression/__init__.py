"""Compressors. A file dropped in one of the folders registers itself when the package is imported."""

from importlib import import_module
from pkgutil import walk_packages

for _module in walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)
