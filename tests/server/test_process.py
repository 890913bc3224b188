"""`affinage serve` as people run it: answers under load, its end, its log, and what is said of wrong arguments."""

import http.client
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import affinage
from affinage.cli.app import run
from serving import Process, ask, connect, process
from tiny import SENTENCES

SECRET = "confidentiel"


class Client:
    """Asks one question after the other on one connection, until it is told that the last answer was the last."""

    def __init__(self, server: Process, number: int) -> None:
        self.answers: list[tuple[str, str, Any]] = []
        self.failures: list[str] = []
        self.statuses: set[int] = set()
        self._port, self._random = server.port, random.Random(number)
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        connection = connect(self._port)
        try:
            connection.connect()
            while True:
                text = " ".join(self._random.choices(SENTENCES[0].split(), k=self._random.randint(1, 9)))
                model = self._random.choice(("sentiment", "ner"))
                path = f"/models/{model}/{'predict' if model == 'sentiment' else 'ner'}"
                found = ask(self._port, path, {"inputs": text}, connection=connection)
                self.statuses.add(found.status)
                self.answers.append((model, text, found.content))
                if found.headers.get("connection") == "close":
                    return
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))
        finally:
            connection.close()


def close(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    return bool(ours == theirs or (isinstance(ours, float) and abs(ours - theirs) < 1e-4))


def test_under_load_every_answer_is_right_and_sigterm_loses_none(exported: Callable[[str], Path]) -> None:
    folders = [exported("sentiment"), exported("ner")]
    with process(folders) as server:
        clients = [Client(server, number) for number in range(12)]
        while sum(len(client.answers) for client in clients) < 600:
            assert all(client.thread.is_alive() for client in clients), [client.failures for client in clients]
            time.sleep(0.05)
        assert server.stop(signal.SIGTERM) == 0
        for client in clients:
            client.thread.join(60)
    assert [client.failures for client in clients] == [[]] * 12
    assert set.union(*(client.statuses for client in clients)) == {200}
    answers = [answer for client in clients for answer in client.answers]
    for model in ("sentiment", "ner"):
        offline = affinage.load(exported(model), threads=1)
        asked = sorted({text for name, text, _ in answers if name == model})
        said = offline.predict(asked, **({"top_k": 2} if model == "sentiment" else {}))
        wanted = {
            text: one["entities"] if model == "ner" else [{k: x[k] for k in ("score", "label")} for x in one["top"]]
            for text, one in zip(asked, said, strict=True)
        }
        assert all(close(content, wanted[text]) for name, text, content in answers if name == model)
    logged = [line for line in server.lines if line["event"] == "request"]
    assert len(logged) == len(answers)
    assert server.lines[-1]["event"] == "stopped"
    assert any(line["texts"] for line in logged)


def test_the_log_tells_no_text_and_the_token_can_come_from_the_environment(exported: Callable[[str], Path]) -> None:
    with process([f"avis={exported('sentiment')}"], env={"AFFINAGE_TOKEN": "un-long-secret"}) as server:
        headers = {"Authorization": "Bearer un-long-secret"}
        assert ask(server.port, "/predict", {"inputs": SECRET}).status == 401
        for path, body in (
            ("/predict", {"inputs": SECRET}),
            ("/models/avis/predict", {"inputs": [SECRET] * 3}),
            (f"/models/{SECRET}/predict", {"inputs": "a"}),
            (f"/{SECRET}", {SECRET: SECRET}),
            ("/predict", {"inputs": "a", "model": SECRET}),
            ("/predict", SECRET.encode()),
        ):
            ask(server.port, path, body, headers={**headers, "X-Text": SECRET})
        assert server.stop() == 0
    shown = json.dumps(server.lines)
    assert SECRET not in shown and "un-long-secret" not in shown
    assert server.lines[0]["models"] == {"avis": ["predict"]}
    requests = [line for line in server.lines if line["event"] == "request"]
    assert [line["status"] for line in requests] == [401, 200, 422, 404, 404, 404, 400]
    assert requests[1].keys() == {
        *("time", "level", "event", "method", "endpoint", "status", "ms"),
        *("model", "texts", "characters", "queue_ms", "inference_ms"),
    }
    assert requests[1]["endpoint"] == "/predict" and requests[3]["endpoint"] == "/models/{model}/predict"


def test_ctrl_c_ends_it_too(exported: Callable[[str], Path]) -> None:
    with process([exported("sentiment")], "--token", "un-long-secret") as server:
        assert ask(server.port, "/health").status == 200
        assert server.stop(signal.SIGINT) == 130


def test_it_needs_neither_torch_nor_transformers(exported: Callable[[str], Path]) -> None:
    code = (
        "import sys, affinage\n"
        "from affinage.runtime.server.app import make_app\n"
        "from affinage.runtime.server.limits import Limits\n"
        "from affinage.runtime.server.models import Models, load_models\n"
        f"make_app(Models(load_models({{'a': {str(exported('sentiment'))!r}}}), Limits()))\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["nowhere"], "nowhere"),
        (["MODEL", "MODEL"], "two models are called 'sentiment'; give one another name: NAME="),
        (["a b=MODEL"], "'a b' cannot be a name in a path"),
        (["MODEL", "--host", "300.1.1.1"], "300.1.1.1:0 cannot be served on: "),
        (["MODEL", "--token", "court"], "expected 8 to 512 visible ASCII characters"),
        (["MODEL", "--queue", "8"], "max_texts 32 is more than the queue holds (8)"),
    ],
)
def test_arguments_that_cannot_be_used(
    line: list[str], said: str, exported: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [one.replace("MODEL", str(exported("sentiment"))) for one in line]
    port = [] if "--port" in line else ["--port", "0"]
    assert run(["serve", *given, *port]) == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_before_the_models_are_read(
    port: int, exported: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "nowhere", "--port", str(port)]) == 2
    assert f"127.0.0.1:{port} cannot be served on: Address already in use" in capsys.readouterr().err
