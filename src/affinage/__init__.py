"""affinage makes BERT-family encoders small and fast, and says exactly what that cost."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> module. Resolved on first use, so that `import affinage` needs neither torch nor transformers.
_PUBLIC = {
    "AffinageError": "affinage.errors",
    "InputError": "affinage.errors",
    "Recipe": "affinage.recipe",
    "Report": "affinage.report.report",
    "Predictor": "affinage.runtime.predictor",
    "load": "affinage.runtime.load",
    "pipeline": "affinage.runtime.stock.load",
    "load_model": "affinage.models.checkpoint",
    "demo": "affinage.workflows.demo",
    "pretrain": "affinage.workflows.pretrain",
    "distil": "affinage.workflows.distil",
    "compress": "affinage.workflows.compress",
    "Plan": "affinage.compression.plan",
    "augment": "affinage.workflows.augment",
    "distil_task": "affinage.workflows.distil_task",
    "finetune": "affinage.workflows.finetune",
    "baseline": "affinage.workflows.baseline",
    "evaluate": "affinage.workflows.evaluate",
    "inspect": "affinage.workflows.inspect",
    "predict": "affinage.workflows.predict",
    "export": "affinage.workflows.export",
    "serve": "affinage.workflows.serve",
    "benchmark": "affinage.workflows.benchmark",
    "make_report": "affinage.workflows.report",  # `affinage.report` is a package
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'affinage' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
