"""The same application as a Ray Serve deployment: replicas on as many machines as the cluster has."""

from collections.abc import Mapping
from typing import Any

from affinage.errors import MissingExtra
from affinage.runtime.server.app import make_app
from affinage.runtime.server.limits import Limits
from affinage.runtime.server.models import Models, load_models


def ray_app(
    folders: Mapping[str, str],
    *,
    replicas: int = 2,
    threads: int = 1,
    token: str | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Any:
    """An application for `ray.serve.run`: every replica loads the folders (name -> path, read on its own machine),
    keeps `threads` cores, and batches the requests that it is sent. `options` go to `serve.deployment`.

    Raises: MissingExtra where Ray is not installed.
    """
    try:
        from ray import serve
    except ModuleNotFoundError:
        raise MissingExtra("ray", "ray") from None
    taken = limits or Limits()

    def build() -> Any:
        """Called in the replica: what it makes cannot be sent there."""
        return make_app(Models(load_models(folders, threads=threads), taken), token=token)

    @serve.deployment(
        num_replicas=replicas,
        ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=taken.queue,  # beyond it Ray holds them back; up to it they are there to be batched
        **options,
    )
    @serve.ingress(build)
    class Affinage:
        pass

    return Affinage.bind()  # type: ignore[attr-defined]
