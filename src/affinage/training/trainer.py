"""transformers' Trainer for sums of losses that count different things: tokens, masked tokens, rows."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback, Trainer, TrainingArguments

from affinage.data.rows import PackedRows
from affinage.data.streamed import Rows
from affinage.data.taught import TaughtRows
from affinage.models.storage import STOCK, fill_, read_weights, save_training
from affinage.training.ahead import Ahead
from affinage.training.cadence import LogWithCheckpoints, TellEpoch
from affinage.training.sharding import compute_as_ddp_, gathered, in_pieces

_LOSS_PARAMETERS = "losses.safetensors"


class WeightedLosses(Protocol):
    """What the trainer trains: a module that holds a student and K weighted losses."""

    student: PreTrainedModel
    names: Sequence[str]
    """K names"""
    weights: Tensor
    """(K,)"""

    def counts(self, inputs: dict[str, Tensor]) -> Tensor:
        """(K,) places each loss sums over in a batch; known without a forward pass."""
        ...

    def loss_parameters(self) -> dict[str, Tensor]:
        """Parameters of the losses themselves: in checkpoints, not in the saved student."""
        ...

    def __call__(self, *, scales: Tensor | None = None, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """() sum of scales[k] * total[k], with gradient, and the totals (K,) without; `scales` None: the weights."""
        ...


class SumTrainer(Trainer):
    """Minimises sum_k weight_k * total_k / count_k, the counts added over accumulation steps and processes first."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        rows: Rows | TaughtRows,
        held_out: PackedRows | TaughtRows,
        tokenizer: PreTrainedTokenizerFast,
        callbacks: list[Any],
        scores: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """`scores` gives further held-out figures at each evaluation."""
        self._sampler = rows.sampler(args.seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            eval_dataset=held_out,
            data_collator=rows.collate,
            processing_class=tokenizer,
            callbacks=[*callbacks, TellEpoch(self._sampler), LogWithCheckpoints()],
        )
        self.losses: WeightedLosses = model  # type: ignore[assignment]
        # Trainer adds a callback that prints every log to standard output, which is for results.
        self.remove_callback(PrinterCallback)
        compute_as_ddp_(self.accelerator)
        self._scores, self._held_out = scores, held_out
        self._logged = torch.zeros(len(self.losses.names), dtype=torch.float64)
        self._logged_steps: set[int] = set()
        self._ahead: tuple[Iterator[Any], Ahead[Any]] | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer; no thread that makes batches outlives it."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self._leave_ahead()

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of a step. With an accelerator the next ones are made meanwhile; a CPU has no time left over."""
        if torch.accelerator.is_available():
            if self._ahead is None or self._ahead[0] is not epoch_iterator:
                self._leave_ahead()
                self._ahead = epoch_iterator, Ahead(epoch_iterator)
            return super().get_batch_samples(self._ahead[1], num_batches, device)
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _leave_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead[1].close()
            self._ahead = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:
        return self._sampler

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        counts = torch.stack([self.losses.counts(batch) for batch in batch_samples]).sum(0).to(device)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts[None]).sum(0)
        return counts

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        assert isinstance(num_items_in_batch, Tensor)
        counts = num_items_in_batch.clamp(min=1)
        # Gradients are averaged over processes; the counts are already those of all of them.
        with self.accelerator.autocast():
            loss, totals = model(**inputs, scales=self.losses.weights / counts * self.args.world_size)
        self._logged += (totals / counts).double().cpu()
        self._logged_steps.add(self.state.global_step)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._logged_steps:
            parts = self._logged.to(self.args.device, torch.float32)[None]
            means = self.accelerator.gather(parts).sum(0) / len(self._logged_steps)
            logs.update({name: float(mean) for name, mean in zip(self.losses.names, means, strict=True)})
            self._logged.zero_()
            self._logged_steps.clear()
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Mean of every loss over the held-out rows, with masks that never change."""
        began = time.perf_counter()
        model = self.model
        assert model is not None
        model.eval()
        sums = torch.zeros(2, len(self.losses.names), dtype=torch.float64, device=self.args.device)
        for inputs in self._held_out_batches():
            with self.compute_loss_context_manager(), self.accelerator.autocast():
                sums[0] += model(**inputs)[1].double()
            sums[1] += self.losses.counts(inputs).double()
        if self.args.world_size > 1:
            sums = self.accelerator.gather(sums[None]).sum(0)
        means = sums[0] / sums[1].clamp(min=1)
        metrics = {f"eval_{name}": float(mean) for name, mean in zip(self.losses.names, means, strict=True)}
        metrics["eval_loss"] = float((self.losses.weights.double() * means).sum())
        metrics.update({f"eval_{name}": value for name, value in self._scores().items()})
        model.train()
        self.log(dict(metrics))
        metrics["eval_seconds"] = time.perf_counter() - began
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _held_out_batches(self) -> Iterator[dict[str, Tensor]]:
        """This process's share of the held-out rows, each row in one process only, with the masks of epoch 0."""
        rows, size = self._held_out, self.args.eval_batch_size
        mine = range(self.args.process_index, len(rows), self.args.world_size)
        for start in range(0, len(mine), size):
            items: list[Any] = [rows[(0, row)] for row in mine[start : start + size]]
            yield self._prepare_inputs(rows.collate(items))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # Under FSDP `state_dict` is the whole of the model, gathered from all processes, which therefore all come here.
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        student, parameters, weights = self.losses.student, self.losses.loss_parameters(), None
        if state_dict is not None:
            assert self.model is not None
            weights = gathered(state_dict, self.model, dict(student.named_parameters()))
            parameters = gathered(state_dict, self.model, parameters)
        save_training(student, folder, weights=weights)
        if parameters:
            save_file({name: p.detach().contiguous() for name, p in parameters.items()}, folder / _LOSS_PARAMETERS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        student = self.losses.student
        # Tied weights are stored once; the missing twin is tied again.
        fill_(student, in_pieces(read_weights(folder), student.state_dict()), of=folder)
        if (folder / STOCK).is_file():
            student.tie_weights()
        if (folder / _LOSS_PARAMETERS).is_file():
            parameters = self.losses.loss_parameters()
            stored = in_pieces(load_file(folder / _LOSS_PARAMETERS), parameters)
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(stored[name])
