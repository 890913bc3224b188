"""A predictor of a model's folder or hub name: which engine computes it, with how many threads."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from affinage.errors import InputError
from affinage.runtime.facts import Engine, ModelFacts, ModelKind, agreed_kind, texts_of_task
from affinage.runtime.inputs import check_threads
from affinage.runtime.onnx.config import GRAPHS, is_exported, read_onnx_config, read_tokenizer
from affinage.runtime.onnx.session import OnnxEngine
from affinage.runtime.predictor import BATCH_SIZE, Predictor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from affinage.models.pooling import Pooling

EngineName = Literal["torch", "onnx", "openvino"]
Dtype = Literal["float32", "bfloat16"]


def load(
    name_or_path: str | Path,
    *,
    task: str | None = None,
    engine: EngineName | None = None,
    threads: int | None = None,
    batch_size: int = BATCH_SIZE,
    dtype: Dtype = "float32",
) -> Predictor:
    """A predictor for a model folder or hub name, or for a folder that `affinage export` wrote, which needs neither
    torch nor transformers; its task is found in its config.

    `task`: insist on one ("sentiment", "ner", …, "fill-mask", "zero-shot", "embedding"), for a config that does not say
    it. `engine`: None takes that of its format for an exported folder and "torch" for a model; a model under "onnx" or
    "openvino" is made a float32 graph in memory (affinage[export]). `threads`: None takes what OMP_NUM_THREADS says,
    else the cores that the process may use; those of torch are the whole process's. `batch_size`: rows computed at
    once, at most. `dtype`: "bfloat16" of torch and OpenVINO is quicker on CPUs that have it (AVX512-BF16, AMX), and
    changes scores in the third digit.

    >>> predictor = load("runs/sentiment")  # doctest: +SKIP
    >>> predictor.predict("Un film magnifique.")  # doctest: +SKIP
    [{'label': 'positive', 'score': 0.98}]

    Raises: InputError where the model cannot be read, is not fine-tuned, or does another task; MissingExtra where the
    engine is not installed.
    """
    _check(engine, threads, dtype)
    if is_exported(name_or_path):
        return _load_exported(
            Path(name_or_path), task=task, engine=engine, threads=threads, batch_size=batch_size, dtype=dtype
        )
    from affinage.models.checkpoint import check_fit, load_tokenizer, read_config
    from affinage.models.flaubert_tokenizer import refuse_differing
    from affinage.runtime.kind import kind_of, load_network

    config = read_config(name_or_path)
    kind = kind_of(config, where=str(name_or_path), task=task)
    tokenizer = load_tokenizer(name_or_path)
    check_fit(tokenizer, config, where=name_or_path)
    refuse_differing(tokenizer, where=name_or_path, what="the runtime")
    model, pooling = load_network(name_or_path, kind)
    return predictor_of(
        model,
        tokenizer,
        kind=kind,
        task=task,
        pooling=pooling,
        engine=engine,
        threads=threads,
        batch_size=batch_size,
        dtype=dtype,
    )


def predictor_of(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerFast",
    *,
    kind: ModelKind,
    task: str | None = None,
    pooling: "Pooling | None" = None,
    engine: EngineName | None = None,
    threads: int | None = None,
    batch_size: int = BATCH_SIZE,
    dtype: Dtype = "float32",
) -> Predictor:
    """A predictor for a loaded transformers model; one for embeddings has a head, which is not used."""
    from affinage.runtime.kind import facts_of

    facts = facts_of(model, tokenizer, kind, task=task, pooling=pooling)
    mode = None if kind != "embedding" else "mean" if pooling is None else pooling.mode
    made: Engine
    if engine in (None, "torch"):
        from affinage.runtime.engine import TorchEngine

        made = TorchEngine(
            model, pad_id=facts.pad_id, mask_id=facts.mask_id, pooling=mode, threads=threads, dtype=dtype
        )
    else:
        from affinage.runtime.onnx.extra import export_extra

        with export_extra():
            from affinage.runtime.onnx.build import onnx_graph
        graph = onnx_graph(model, pooling=mode).SerializeToString()
        made = _graph_engine(graph, facts, engine=engine, threads=threads, dtype=dtype)
    return Predictor(made, tokenizer.backend_tokenizer, facts, batch_size=batch_size)


def _load_exported(
    folder: Path, *, task: str | None, engine: EngineName | None, threads: int | None, batch_size: int, dtype: Dtype
) -> Predictor:
    config = read_onnx_config(folder)
    facts: ModelFacts = config
    if task is not None:
        kind = agreed_kind(facts.kind, task=task, noted=facts.task, where=str(folder))
        facts = facts.model_copy(update={"kind": kind, "task": task, "texts": texts_of_task(task)})
    if engine == "torch":
        raise InputError(f"model '{folder}' is an exported graph: its engines are onnx and openvino")
    if config.graph == "openvino":
        if engine == "onnx":
            raise InputError(f"model '{folder}' was exported for OpenVINO: its engine is openvino")
        engine = "openvino"
    made = _graph_engine(folder / GRAPHS[config.graph], facts, engine=engine, threads=threads, dtype=dtype)
    return Predictor(made, read_tokenizer(folder), facts, batch_size=batch_size)


def _graph_engine(
    graph: Path | bytes, facts: ModelFacts, *, engine: EngineName | None, threads: int | None, dtype: Dtype
) -> Engine:
    settings: dict[str, Any] = {"pad_id": facts.pad_id, "mask_id": facts.mask_id, "threads": threads}
    if engine == "openvino":
        from affinage.runtime.openvino import OpenVinoEngine

        return OpenVinoEngine(graph, **settings, dtype=dtype, longest=facts.max_length)
    if dtype != "float32":
        raise InputError(f"dtype '{dtype}' is of the engines torch and openvino; ONNX Runtime has none but float32")
    return OnnxEngine(graph, **settings)


def _check(engine: Any, threads: Any, dtype: Any) -> None:
    """Raises: InputError."""
    if engine is not None and engine not in get_args(EngineName):
        raise InputError(f"engine '{engine}': expected {', '.join(get_args(EngineName))}")
    if dtype not in get_args(Dtype):
        raise InputError(f"dtype '{dtype}': expected {', '.join(get_args(Dtype))}")
    if threads is not None:
        check_threads(threads)
