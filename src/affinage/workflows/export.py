"""`affinage export`: a model -> a folder for ONNX Runtime or OpenVINO, kept only if it answers as the model does."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from affinage import __version__
from affinage.data.encoding import Row, encode_pairs, encode_texts
from affinage.data.examples import Example, read_examples
from affinage.data.features import texts_of
from affinage.data.readers import find_parts
from affinage.data.task import load_task, task_names
from affinage.errors import InputError
from affinage.models.checkpoint import (
    check_fit,
    load_tokenizer,
    max_length,
    read_config,
    weights_fingerprint,
)
from affinage.models.flaubert_tokenizer import refuse_differing
from affinage.models.modules.int8 import Int8Linear
from affinage.runtime.onnx.extra import export_extra
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.workflows.export_int8 import static_int8
from affinage.workflows.labelled_data import labelled_parts

log = logging.getLogger(__name__)

ROWS = 200
"""of the sample, at most"""
LONGEST = 128
"""tokens of a row of the sample, at most"""


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    kind: str
    int8: str
    size_bytes: int
    """of the graph, its weights included"""
    operators: int
    rows: int
    """of the sample"""
    largest_difference: float
    """of two logits"""
    agreement: float
    """share of equal answers, in [0, 1]"""
    seconds: float


def export(
    model: str | Path,
    *,
    out: str | Path,
    form: Literal["onnx", "openvino"] = "onnx",
    int8: Literal["none", "dynamic", "static"] = "none",
    target: Literal["x86-vnni", "x86", "arm64"] = "x86-vnni",
    task: str | None = None,
    data: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    least_agreement: float = 0.95,
    overwrite: bool = False,
) -> Exported:
    """Write `model` (a folder or hub name) to the folder `out` as a graph for ONNX Runtime or OpenVINO.

    `int8` "dynamic": weights and embeddings as 8-bit integers, a scale for each row; activations are quantized as they
    come. "static": activations in ranges that are measured on every second row of the sample, and compared on the
    others; those of a text do not depend on its neighbours then. `target`: the processors that the integers are made
    for; "x86" are those without VNNI, which add products in 16 bits: weights get 7. `data`: texts to compare the graph
    with the model on, of the task (`columns` as everywhere); by default 200 rows of the French sets that come with
    affinage.

    Raises: InputError for what cannot be exported; CheckFailed where the graph does not answer as the model does:
    float32 logits that differ, int8 answers of which fewer than `least_agreement` are the same. Nothing is kept then.
    """
    began = time.perf_counter()
    _check(form=form, int8=int8, target=target, least_agreement=least_agreement)
    if columns and data is None:
        raise InputError("--column says how --data is read: give --data, or leave it out")
    refuse_existing(out, overwrite=overwrite)
    with export_extra():
        from affinage.runtime.engine import TorchEngine
        from affinage.runtime.kind import facts_of, kind_of, load_network
        from affinage.runtime.onnx.batches import GraphEngine
        from affinage.runtime.onnx.build import integers_in, onnx_graph
        from affinage.runtime.onnx.config import GRAPHS, OnnxConfig
        from affinage.runtime.onnx.folder import write_config_and_card, write_graph, write_tokenizer
        from affinage.runtime.onnx.linear import Int8
        from affinage.runtime.onnx.parity import check, compare, masked_in_the_middle
        from affinage.runtime.onnx.session import OnnxEngine
        from affinage.runtime.openvino import OpenVinoEngine, converted, openvino_package

    if form == "openvino":
        openvino_package()  # or it is said at once that it is missing
    config = read_config(model)
    kind = kind_of(config, where=str(model), task=task)
    tokenizer = load_tokenizer(model)
    check_fit(tokenizer, config, where=model)
    refuse_differing(tokenizer, where=model, what="the runtime")
    if data is not None:
        find_parts(data)  # or it is said before the weights are read
    identity = {"verb": "export", "model": weights_fingerprint(model), "int8": int8, "target": target, "form": form}
    folder = RunFolder.open(out, identity=identity, overwrite=overwrite)
    made: list[Exported] = []
    with _removed_on_failure(folder.partial):
        network, pooling = load_network(model, kind)
        facts = facts_of(network, tokenizer, kind, task=task, pooling=pooling)
        mode = None if pooling is None else pooling.mode
        length = min(LONGEST, max_length(config), tokenizer.model_max_length)
        rows = _sample(tokenizer.backend_tokenizer, kind, facts.texts, facts.task, data, columns, length)
        if kind == "fill_mask":
            if facts.mask_id is None:
                raise InputError(
                    f"model '{model}': its tokenizer has no mask token, so it cannot be asked for a masked word"
                )
            rows = masked_in_the_middle(rows, facts.mask_id)
        if int8 == "static":
            if len(rows) < 2:
                raise InputError(
                    f"--int8 static: {data}: one row, and half of the rows are measured, half compared: give more"
                )
            rows, measured_on = rows[1::2], rows[::2]
            made_static = static_int8(network, measured_on, pad_id=facts.pad_id, narrow=target == "x86")
            graph = onnx_graph(made_static, pooling=mode, pairs=form == "openvino")
        else:
            as_int8 = None if int8 == "none" else Int8(bits=7 if target == "x86" else 8)
            graph = onnx_graph(network, int8=as_int8, pooling=mode, pairs=form == "openvino")
        own = integers_in(network)
        _check_target(network, target, integers=own != "none" or int8 != "none")
        integers = int8 if int8 != "none" else own
        reference = TorchEngine(network, pad_id=facts.pad_id, mask_id=facts.mask_id, pooling=mode)

        def write(aside: Path) -> None:
            path = write_graph(graph, aside)
            engine: GraphEngine
            if form == "openvino":
                made_of, path = path, aside / GRAPHS[form]
                converted(made_of, path)
                for file in aside.glob(f"{made_of.name}*"):
                    file.unlink()
                engine = OpenVinoEngine(path, pad_id=facts.pad_id, mask_id=facts.mask_id, longest=facts.max_length)
            else:
                engine = OnnxEngine(path, pad_id=facts.pad_id, mask_id=facts.mask_id)
            parity = compare(engine, reference, rows, kind)
            check(parity, int8={integers, own} != {"none"}, least_agreement=least_agreement)
            write_tokenizer(tokenizer, aside)
            whole = OnnxConfig(
                **facts.model_dump(),
                affinage=__version__,
                architecture=config.model_type,
                graph=form,
                int8=integers,
                target=None if integers == "none" else target,
                parity=parity,
            )
            write_config_and_card(whole, aside, name=Path(out).name, source=str(model))
            made.append(
                Exported(
                    kind=kind,
                    int8=integers,
                    size_bytes=sum(file.stat().st_size for file in aside.glob("model.*")),
                    operators=len(graph.graph.node),
                    rows=parity.rows,
                    largest_difference=parity.largest_difference,
                    agreement=parity.agreement,
                    seconds=round(time.perf_counter() - began, 1),
                )
            )

        folder.finish(write)
    return made[0]


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """Nothing of an export is taken up, so that nothing of one that failed is left."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_target(model: PreTrainedModel, target: str, *, integers: bool) -> None:
    """Raises: InputError for a target of a graph without integers, or one that the model's own integers are not for."""
    if target == "x86-vnni":
        return
    if not integers:
        raise InputError(f"--target {target}: it is about 8-bit integers, of which this graph has none: add --int8")
    own = [module.codes for module in model.modules() if isinstance(module, Int8Linear)]
    if target == "x86" and any(int(codes.abs().max()) > 63 for codes in own):
        raise InputError(
            "--target x86: the model's own int8 weights have 8 bits, whose sums saturate without VNNI: compress it "
            "again with int8:reduce_range=true"
        )


def _check(*, form: str, int8: str, target: str, least_agreement: float) -> None:
    """Raises: InputError for an option that is not there."""
    from affinage.runtime.onnx.config import Form, Int8Kind, Target

    if form not in get_args(Form):
        raise InputError(f"--format '{form}': expected {', '.join(get_args(Form))}")
    if int8 not in get_args(Int8Kind):
        raise InputError(f"--int8 '{int8}': expected {', '.join(get_args(Int8Kind))}")
    if form == "openvino" and int8 == "dynamic":
        raise InputError(
            "--int8 dynamic: OpenVINO has no kernels for ranges that are found at every run; take --int8 static, or "
            "--format onnx"
        )
    if target not in get_args(Target):
        raise InputError(f"--target '{target}': expected {', '.join(get_args(Target))}")
    if not 0 <= least_agreement <= 1:
        raise InputError(f"--least-agreement {least_agreement:g}: expected a share from 0 to 1")


def _sample(
    tokenizer: Tokenizer,
    kind: str,
    texts: int | None,
    task: str | None,
    data: str | Path | None,
    columns: Mapping[str, str] | None,
    length: int,
) -> list[Row]:
    """Rows of real text as the model reads them."""
    if data is not None:
        if kind in ("fill_mask", "embedding"):
            raise InputError(
                f"--data is for models of a task with labels; this is a {kind} model, which is compared on texts that "
                "come with affinage: leave --data out"
            )
        if task not in task_names():
            raise InputError("--data needs a task, which the model's config does not name: give it with --task")
        parts = labelled_parts(load_task(task), data, columns=columns)
        source = next(parts[name] for name in ("test", "valid", "all", "train") if name in parts)
        examples = read_examples(load_task(task), source, columns=columns, limit=ROWS)
    elif kind == "span":
        examples = _shipped("qa")
    elif kind == "pair" or (kind == "regression" and texts == 2):
        examples = _shipped("nli")
    else:
        examples = _shipped("sentiment")
    read = [texts_of(example) for example in examples]
    if len(read[0]) == 2:
        return encode_pairs(tokenizer, [(first, second) for first, second in read], max_length=length)
    return encode_texts(tokenizer, [text for (text,) in read], max_length=length)


def _shipped(task: str) -> list[Example]:
    """Texts of the French sets that come with affinage; their labels are not used."""
    folder = Path(str(resources.files("affinage.assets"))) / "data" / task
    return read_examples(load_task(task), folder / "test.jsonl", limit=ROWS)
