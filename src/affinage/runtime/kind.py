"""What question a model answers, as the task that was asked for, its config, its class and its labels say."""

from typing import Any, Literal

from affinage.data.task import load_task, task_names
from affinage.errors import InputError, unknown
from affinage.models.checkpoint import head_kind, task_of
from affinage.models.layout import class_names
from affinage.runtime.onnx.config import ModelKind

_OTHER_TASKS: dict[str, ModelKind] = {"fill-mask": "fill_mask", "zero-shot": "pair"}


def texts_of(config: Any, task: str | None) -> Literal[1, 2] | None:
    """How many texts an input has, where the task that was asked for or noted says it."""
    name = task or task_of(config)
    if name not in task_names():
        return None
    return 2 if "hypothesis" in load_task(name).columns else 1


def kind_of(config: Any, *, where: str, task: str | None) -> ModelKind:
    """What a model does: the task asked for, else the one in its config, else what its class and labels say.

    Raises: InputError where nothing says it, or the model was made for another kind of task.
    """
    if task is not None and task not in {*task_names(), *_OTHER_TASKS}:
        raise InputError(unknown("task", task, [*task_names(), *_OTHER_TASKS]))
    masked = any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in class_names(config))
    head: ModelKind | None = "fill_mask" if masked else head_kind(config)
    if head == "sequence" and any(str(name).lower().startswith("entail") for name in (config.id2label or {}).values()):
        head = "pair"
    noted = task_of(config)
    found = load_task(noted).kind if noted in task_names() else head
    asked = None if task is None else _OTHER_TASKS.get(task) or load_task(task).kind
    if found is None and asked is None:
        raise InputError(f"model '{where}': its config names no task and no head; say which with task=… (--task)")
    same_head = {found, asked} <= {"sequence", "pair"}  # one class of transformers serves both
    if asked is not None and found is not None and asked != found and not same_head:
        raise InputError(
            f"model '{where}' is a {found} model{f' ({noted})' if noted else ''}; {task} needs a {asked} one"
        )
    kind = asked or found
    assert kind is not None
    return kind
