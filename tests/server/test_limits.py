"""All that a client can send is bounded, and every bound has its answer: 400, 401, 408, 413, 415, 422, 429, 503."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from affinage.errors import InputError
from affinage.runtime.server.limits import Limits
from serving import Slow, ask, connect, serving

BOUNDS: dict[str, Any] = {
    "max_body_bytes": 4_000,
    "max_text_chars": 100,
    "max_texts": 3,
    "queue": 4,
    "receive_timeout": 0.5,
}


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def port(slow: Slow) -> Iterator[int]:
    with serving({"slow": slow}, **BOUNDS) as found:
        yield found
        slow.let.set()


def raw(port: int, *parts: bytes) -> bytes:
    """All that comes back for these bytes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        for part in parts:
            link.sendall(part)
        found = b""
        with suppress(ConnectionResetError):  # what we still sent nobody read
            while piece := link.recv(65536):
                found += piece
        return found


def head(length: int | str, *more: str) -> bytes:
    lines = ["POST /predict HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def parts(response: bytes) -> tuple[int, dict[str, str]]:
    top, _, body = response.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"nothing", 400),
        (b"\xff\xfe{}", 400),
        (b'{"inputs": NaN}', 400),
        (b'{"inputs": "\\ud800"}', 400),
        (b'{"inputs": ' + b"[" * 3_900, 400),
        (b'{"inputs": ' + b"9" * 3_900 + b"}", 422),
        (b"null", 422),
        (json.dumps({str(i): 0 for i in range(300)}).encode(), 422),
        (b'{"inputs": "   "}', 400),
        (b'{"inputs": [["a"], ["a"], ["a"], ["a"]]}', 413),
        (b'{"inputs": "' + b"a" * 101 + b'"}', 413),
        (b'{"inputs": [' + b"1," * 1_900 + b"1]}", 413),
        (b'{"inputs": [[' + b"1," * 1_900 + b"1]]}", 422),
        (b'{"inputs": "' + b"a" * 4_000 + b'"}', 413),
    ],
)
def test_bodies_that_cannot_be_used(body: bytes, status: int, port: int, slow: Slow) -> None:
    found = ask(port, "/predict", body)
    assert (found.status, set(found.content)) == (status, {"error", "error_type"})
    assert len(found.content["error"]) < 400
    assert slow.batches == []


def test_only_json_is_read(port: int) -> None:
    """A form, which any page on the web could send here, is not."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert ask(port, "/predict", b'{"inputs": "a"}', headers={"Content-Type": kind}).status == 415


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(head(10**12, "Expect: 100-continue"))
        assert link.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_grows_too_large_is_refused_while_it_comes(port: int) -> None:
    """Chunked, it announces nothing; the answer is there while the client still sends."""
    opening = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(opening)
        for _ in range(5):
            link.sendall(b"3e8\r\n" + b"a" * 1000 + b"\r\n")
        assert link.recv(65536).startswith(b"HTTP/1.1 413 ")
        link.sendall(b"3e8\r\n" + b"a" * 1000 + b"\r\n0\r\n\r\n")
        while link.recv(65536):
            pass


def test_the_sender_of_a_giant_body_comes_to_read_the_answer(port: int) -> None:
    found = ask(port, "/predict", b'{"inputs": "' + b"a" * 20_000_000 + b'"}')
    assert (found.status, found.content["error"]) == (413, "the body has more than 4,000 bytes")


def test_a_slow_body_is_408(port: int) -> None:
    assert parts(raw(port, head(100), b'{"inputs"'))[0] == 408


def test_slow_headers_and_silence_end_the_connection(port: int) -> None:
    assert raw(port, b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Slow: ") == b""
    assert raw(port) == b""
    one = connect(port)
    assert ask(port, "/health", connection=one).status == 200
    one.sock.sendall(b"GET /health HT")  # the next request of a connection that was well-behaved
    assert one.sock.recv(100) == b""
    one.close()


def test_bytes_that_are_no_http_are_400(port: int) -> None:
    assert raw(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(port, b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(port, head("nine")).startswith(b"HTTP/1.1 400 ")
    assert ask(port, "/health").status == 200


def test_a_full_queue_is_429_and_what_was_accepted_is_answered(port: int, slow: Slow) -> None:
    answers: list[Any] = []

    def send(*texts: str) -> threading.Thread:
        thread = threading.Thread(
            target=lambda: answers.append(ask(port, "/predict", {"inputs": [[t] for t in texts]}))
        )
        thread.start()
        return thread

    threads = [send("first")]
    assert slow.entered.wait(20)
    threads.append(send("second", "third", "fourth"))
    until_waiting(port, 3)
    refused = ask(port, "/predict", {"inputs": [["fifth"], ["sixth"]]})
    assert (refused.status, refused.content) == (429, {"error": "Model is overloaded", "error_type": "Overloaded"})
    assert refused.headers["retry-after"] == "1"
    threads.append(send("seventh"))
    until_waiting(port, 4)
    slow.let.set()
    for thread in threads:
        thread.join(30)
    assert [answer.status for answer in answers] == [200] * 3
    told = sorted([one[0]["label"] for one in answer.content] for answer in answers)
    assert told == [["first"], ["second", "third", "fourth"], ["seventh"]]
    assert slow.batches == [["first"], ["second", "third", "fourth", "seventh"]]


def until_waiting(port: int, texts: int) -> None:
    for _ in range(500):
        if f"affinage_waiting_texts {texts}.0" in ask(port, "/metrics").content:
            return
    raise AssertionError("they did not come to wait")


def test_an_answer_that_takes_too_long_is_503_and_is_not_computed(slow: Slow) -> None:
    with serving({"slow": slow}, timeout=0.3) as port:
        first = threading.Thread(target=lambda: ask(port, "/predict", {"inputs": "first"}))
        first.start()
        assert slow.entered.wait(20)
        found = ask(port, "/predict", {"inputs": "second"})
        assert (found.status, found.content["error_type"]) == (503, "Overloaded")
        first.join(20)
        slow.let.set()
        assert ask(port, "/predict", {"inputs": "third"}).status == 200
    assert slow.batches == [["first"], ["third"]]


def test_a_client_that_leaves_is_forgotten(port: int, slow: Slow) -> None:
    stays = threading.Thread(target=lambda: ask(port, "/predict", {"inputs": "first"}))
    stays.start()
    assert slow.entered.wait(20)
    body = b'{"inputs": "second"}'
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(head(len(body)) + body)
        until_waiting(port, 1)
    until_waiting(port, 0)
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(head(100) + b"{")  # and one who leaves in the middle of a body
    slow.let.set()
    stays.join(20)
    assert ask(port, "/predict", {"inputs": "third"}).status == 200
    assert slow.batches == [["first"], ["third"]]
    counted = ask(port, "/metrics").content
    assert 'affinage_requests_total{endpoint="/predict",status="499"} 1.0' in counted
    assert 'status="500"' not in counted


def test_the_token(slow: Slow) -> None:
    slow.let.set()
    with serving({"slow": slow}, token="un-jeton-secret") as port:
        for given in (
            None,
            "",
            "un-jeton-secret",
            "Bearer",
            "Bearer un-jeton-secre",
            "Bearer un-jeton-secret2",
            "bearer é",
        ):
            headers = {} if given is None else {"Authorization": given.encode("utf-8").decode("latin-1")}
            for path, body in (
                ("/predict", {"inputs": "a"}),
                ("/info", None),
                ("/models/slow/predict", {"inputs": "a"}),
            ):
                found = ask(port, path, body, headers=headers)
                assert (found.status, found.content["error_type"]) == (401, "Unauthorized")
                assert found.headers["www-authenticate"] == "Bearer"
        headers = {"Authorization": "Bearer un-jeton-secret"}
        assert ask(port, "/predict", {"inputs": "a"}, headers=headers).status == 200
        assert ask(port, "/info", headers=headers).status == 200
        for path in ("/", "/page.js", "/page.css", "/health", "/metrics", "/openapi.json"):
            assert ask(port, path).status == 200
        assert ask(port, "/nowhere").status == 401
    assert slow.batches == [["a"]]


def test_too_many_connections_are_503() -> None:
    with serving({"slow": Slow()}, connections=3) as port:
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        assert ask(port, "/health").status == 200
        held.append(socket.create_connection(("127.0.0.1", port)))
        assert ask(port, "/health").status == 503
        for one in held:
            one.close()


def test_paths_and_methods(port: int) -> None:
    assert ask(port, "/predict").status == 405
    assert ask(port, "/predict", b"", method="PUT").status == 405
    assert ask(port, "/docs").content == {"error": "Not Found", "error_type": "NotFound"}
    assert ask(port, "/../../etc/passwd").status == 404
    assert ask(port, "/page.js/..%2f..%2fpage.html").status == 404


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"queue": 0}, "queue 0"),
        ({"timeout": float("nan")}, "timeout nan"),
        ({"max_delay_ms": -1.0}, "max_delay_ms -1"),
        ({"queue": 8}, "max_texts 32 is more than the queue holds"),
    ],
)
def test_limits_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Limits(**wrong)
