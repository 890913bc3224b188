"""The command line with FSDP on CPUs: accelerate shards weights on accelerators alone, and is told that these are some.

With `DIES` in the environment it is gone once the first checkpoint is whole. Exit code 3: nothing was sharded.
"""

import os
import sys
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed import fsdp

_made, _shard = AcceleratorState.__init__, fsdp.fully_shard
_sharded: list[str] = []


def _sharding(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **settings: Any) -> None:
    _made(self, *args, fsdp_plugin=fsdp_plugin, **settings)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def _noted(module: Any, **settings: Any) -> Any:
    _sharded.append(type(module).__name__)
    return _shard(module, **settings)


if __name__ == "__main__":
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    AcceleratorState.__init__ = _sharding
    fsdp.fully_shard = _noted
    from affinage.cli.app import run
    from affinage.training import resume

    if "DIES" in os.environ:
        resume.rotate = lambda folder: os._exit(9)
    sys.exit(run(sys.argv[1:]) or (0 if "CamembertLayer" in _sharded else 3))
