"""Losses as functions of tensors. A file dropped in this folder registers itself when the package is imported."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
