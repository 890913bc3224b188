"""The Ray Serve deployment: two replicas on this machine answer as the predictor does."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import affinage
from affinage.errors import MissingExtra
from affinage.runtime.server.on_ray import ray_app
from serving import ask

PORT = 8765
TEXTS = [f"Une cave sombre, numéro {i}." for i in range(40)]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own, in its processes and in ours
def test_two_replicas_answer(exported: Callable[[str], Path]) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra [ray]")
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": PORT})
        serve.run(ray_app({"avis": str(exported("sentiment"))}, replicas=2), name="avis", route_prefix="/")
        wanted = [one["top"] for one in affinage.load(exported("sentiment"), threads=1).predict(TEXTS, top_k=2)]
        with ThreadPoolExecutor(8) as clients:
            found = list(clients.map(lambda text: ask(PORT, "/predict", {"inputs": text}), TEXTS))
        assert [one.status for one in found] == [200] * len(TEXTS)
        for answer, right in zip(found, wanted, strict=True):
            assert [one["label"] for one in answer.content] == [one["label"] for one in right]
            assert [one["score"] for one in answer.content] == pytest.approx([one["score"] for one in right], abs=1e-4)
        assert ask(PORT, "/predict", b"{").status == 400
        assert ask(PORT, "/health").content == {"status": "ok"}
        replicas = {serve.status().applications["avis"].deployments["Affinage"].replica_states["RUNNING"]}
        assert replicas == {2}
    finally:
        serve.shutdown()
        ray.shutdown()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"affinage\[ray\]"):
        ray_app({"a": "a"})
