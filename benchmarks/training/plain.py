"""The training loops that affinage is measured beside: as the field's scripts write them, and with Trainer's defaults.

One process measures one way: plain.py WAY OBJECTIVE TEXTS SECONDS. It prints one line of JSON: real tokens, seconds,
peak memory, and the loss at every step.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from shapes import LENGTH, ROWS, WARM_UP, WIDTH, models, tokenizer
from torch import Tensor
from torch.nn.functional import cosine_embedding_loss, cross_entropy, kl_div, log_softmax, mse_loss, softmax
from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

Inputs = dict[str, Tensor]
TEMPERATURE = 2.0


def mlm(student: Any, teacher: Any, inputs: Inputs) -> Tensor:
    """The model's own loss: logits at every position."""
    loss: Tensor = student(**inputs).loss
    return loss


def distilcamembert(student: Any, teacher: Any, inputs: Inputs) -> Tensor:
    """0.5 soft labels + 0.3 cosine + 0.2 MLM on the stock models' outputs, over the real tokens."""
    ours = student(**inputs, output_hidden_states=True)
    with torch.no_grad():
        theirs = teacher(inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True)
    real = inputs["attention_mask"].bool()
    a, b = ours.logits[real], theirs.logits[real]
    soft = (
        kl_div(log_softmax(a / TEMPERATURE, -1), softmax(b / TEMPERATURE, -1), reduction="batchmean") * TEMPERATURE**2
    )
    x, y = ours.hidden_states[-1][real], theirs.hidden_states[-1][real]
    cosine = cosine_embedding_loss(x, y, torch.ones(len(x)))
    guessed = cross_entropy(ours.logits.view(-1, ours.logits.shape[-1]), inputs["labels"].view(-1))
    return 0.5 * soft + 0.3 * cosine + 0.2 * guessed


def tinybert(student: Any, teacher: Any, inputs: Inputs) -> Tensor:
    """Hidden states through one linear map, and what eager attention gives away: probabilities, not scores."""
    del inputs["labels"]
    ours = student(**inputs, output_hidden_states=True, output_attentions=True)
    with torch.no_grad():
        theirs = teacher(**inputs, output_hidden_states=True, output_attentions=True)
    step = len(theirs.attentions) // len(ours.attentions)
    total = torch.zeros(())
    for mine, other in zip(ours.hidden_states, theirs.hidden_states[::step], strict=True):
        total = total + mse_loss(student.fit_dense(mine), other)
    for mine, other in zip(ours.attentions, theirs.attentions[step - 1 :: step], strict=True):
        total = total + mse_loss(mine, other)
    return total


OBJECTIVES: dict[str, Callable[[Any, Any, Inputs], Tensor]] = {
    "mlm": mlm,
    "distilcamembert": distilcamembert,
    "tinybert": tinybert,
}


def batches(texts: list[str], *, padded_to: int | None) -> Iterator[Inputs]:
    """Rows of one text, shuffled, masked anew; padded to a length, or to the longest of the batch."""
    known = tokenizer()
    collate = DataCollatorForLanguageModeling(known, pad_to_multiple_of=padded_to)
    order = torch.Generator().manual_seed(0)
    while True:
        for chosen in torch.randperm(len(texts), generator=order).split(ROWS):
            encoded = known([texts[i] for i in chosen.tolist()], truncation=True, max_length=LENGTH)
            yield dict(collate([{"input_ids": ids} for ids in encoded["input_ids"]]))


def prepared(objective: str) -> tuple[Any, Any]:
    """The two models, TinyBERT's with attention that can be looked at and the map of hidden states."""
    student, teacher = models(objective)
    if objective == "tinybert":
        for model in (student, teacher):
            model.set_attn_implementation("eager")
        student.fit_dense = torch.nn.Linear(WIDTH, WIDTH)
    return student, teacher


def loop(objective: str, texts: list[str], seconds: float, *, padded_to: int | None) -> dict[str, Any]:
    """Forward, backward, AdamW; nothing else."""
    torch.manual_seed(0)
    student, teacher = prepared(objective)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4)
    tokens, began, losses = 0, 0.0, []
    for step, inputs in enumerate(batches(texts, padded_to=padded_to)):
        if step == WARM_UP:
            began = time.perf_counter()
        loss = OBJECTIVES[objective](student, teacher, inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step >= WARM_UP:
            tokens += int(inputs["attention_mask"].sum())
            if time.perf_counter() - began > seconds:
                return {"tokens": tokens, "seconds": time.perf_counter() - began, "losses": losses}
    raise AssertionError("the batches never end")


class Clock(TrainerCallback):
    """Stops a Trainer `seconds` after its first steps."""

    def __init__(self, seconds: float, *, warm_up: int = WARM_UP) -> None:
        self.seconds, self.warm_up = seconds, warm_up
        self.began, self.spent, self.steps = 0.0, 0.0, 0
        """`spent` seconds on `steps`, both without the first ones"""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        if state.global_step == self.warm_up:
            self.began = now
        elif state.global_step > self.warm_up:
            self.spent, self.steps = now - self.began, state.global_step - self.warm_up
            control.should_training_stop = _agreed(self.spent > self.seconds)


def trainer(objective: str, texts: list[str], seconds: float) -> dict[str, Any]:
    """transformers' Trainer with its own collator and defaults, but for the number of rows."""
    torch.manual_seed(0)
    student, teacher = prepared(objective)
    known, seen = tokenizer(), []

    class Distiller(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            seen.append(int(inputs["attention_mask"].sum()))
            return OBJECTIVES[objective](model, teacher, inputs)

    clock = Clock(seconds)
    rows = [{"input_ids": ids} for ids in known(texts, truncation=True, max_length=LENGTH)["input_ids"]]
    with tempfile.TemporaryDirectory() as folder:
        run = Distiller(
            student,
            TrainingArguments(
                folder, per_device_train_batch_size=ROWS, num_train_epochs=1000, use_cpu=True, report_to="none"
            ),
            train_dataset=rows,  # type: ignore[arg-type]
            data_collator=DataCollatorForLanguageModeling(known),
            callbacks=[clock],
        )
        run.train()
    return {"tokens": sum(seen[WARM_UP:]), "seconds": clock.spent, "losses": []}


def _agreed(stop: bool) -> bool:
    """What the first process says, in all of them."""
    if not torch.distributed.is_initialized():
        return stop
    said = torch.tensor([stop])
    torch.distributed.broadcast(said, 0)
    return bool(said)


WAYS: dict[str, Callable[..., dict[str, Any]]] = {
    "plain, padded to 128": lambda *given: loop(*given, padded_to=LENGTH),
    "plain, padded to the longest": lambda *given: loop(*given, padded_to=None),
    "Trainer's defaults": trainer,
}


def main(way: str, objective: str, texts: Path, seconds: float) -> None:
    found = WAYS[way](objective, texts.read_text(encoding="utf-8").splitlines(), seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**found, "peak_memory_bytes": peak}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
