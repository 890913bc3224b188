"""`affinage serve`: arguments of the workflow of that name."""

from typing import Annotated

import typer

from affinage.cli.options import Quiet


def serve(
    models: Annotated[list[str], typer.Argument(metavar="DIR", help="Exported folders; NAME=DIR names one.")],
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", metavar="TEXT", envvar="AFFINAGE_TOKEN", help="Clients must send it: Authorization: Bearer TEXT."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="Of the models. Default: the cores.")
    ] = None,
    max_batch_tokens: Annotated[
        int, typer.Option("--max-batch-tokens", metavar="N", min=1, help="Computed together, about.")
    ] = 1024,
    max_delay_ms: Annotated[
        float, typer.Option("--max-delay-ms", metavar="MS", min=0, help="How long a text may wait for company.")
    ] = 2.0,
    queue: Annotated[int, typer.Option("--queue", metavar="N", min=1, help="Texts that may wait; above: 429.")] = 512,
    max_text_chars: Annotated[
        int, typer.Option("--max-text-chars", metavar="N", min=1, help="Of one text; above: 413.")
    ] = 20_000,
    max_texts: Annotated[int, typer.Option("--max-texts", metavar="N", min=1, help="Of one request; above: 413.")] = 32,
    max_labels: Annotated[
        int, typer.Option("--max-labels", metavar="N", min=1, help="Of a zero-shot request; above: 413.")
    ] = 32,
    max_body_bytes: Annotated[
        int, typer.Option("--max-body-bytes", metavar="N", min=1, help="Of one request; above: 413.")
    ] = 2 * 2**20,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.001, help="Seconds to an answer; above: 503.")
    ] = 30.0,
    receive_timeout: Annotated[
        float, typer.Option("--receive-timeout", metavar="S", min=0.001, help="Seconds to send a request; above: 408.")
    ] = 10.0,
    connections: Annotated[
        int, typer.Option("--connections", metavar="N", min=1, help="Open at once; above: 503.")
    ] = 512,
    auto_truncate: Annotated[
        bool, typer.Option("--auto-truncate", help="Cut texts that are too long, where a request does not say.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Models -> an HTTP server that computes the requests of many clients together.

    It needs no torch for folders that affinage export wrote. SIGTERM or Ctrl-C stop it once it has answered.

    \b
    affinage serve sentiment-int8 --port 8000
    affinage serve sentiment-int8 ner=runs/ner-int8 --token "$TOKEN"
    curl 127.0.0.1:8000/predict -H 'Content-Type: application/json' -d '{"inputs": "Trop salé."}'
    """
    from affinage.workflows.serve import serve as run

    run(
        models,
        host=host,
        port=port,
        token=token,
        threads=threads,
        log_level="warning" if quiet else "info",
        max_batch_tokens=max_batch_tokens,
        max_delay_ms=max_delay_ms,
        queue=queue,
        max_text_chars=max_text_chars,
        max_texts=max_texts,
        max_labels=max_labels,
        max_body_bytes=max_body_bytes,
        timeout=timeout,
        receive_timeout=receive_timeout,
        connections=connections,
        auto_truncate=auto_truncate,
    )
