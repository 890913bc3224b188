"""A recipe's training section as transformers' TrainingArguments."""

import math
from typing import Any

import torch
from transformers import TrainingArguments

from affinage.errors import InputError
from affinage.recipe import Training
from affinage.report.provenance import CPUINFO
from affinage.training.run_folder import RunFolder


def total_steps(training: Training, rows: int, *, processes: int = 1) -> int:
    """Optimizer steps of a stage over `rows` rows an epoch."""
    if training.max_steps is not None:
        return training.max_steps
    batches = math.ceil(rows / (training.batch_size * processes))
    return max(1, math.ceil(training.epochs * math.ceil(batches / training.gradient_accumulation_steps)))


def training_arguments(training: Training, *, folder: RunFolder, steps: int, **more: Any) -> TrainingArguments:
    """Arguments for `steps` optimizer steps; evaluation and checkpoints are spread evenly over them."""
    every = math.ceil(steps / training.evaluations)
    settings: dict[str, Any] = {
        "output_dir": str(folder.checkpoints),
        "max_steps": steps,
        "per_device_train_batch_size": training.batch_size,
        "per_device_eval_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": math.ceil(training.warmup * steps),
        "weight_decay": training.weight_decay,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "max_grad_norm": training.max_grad_norm,
        "seed": training.seed,
        "data_seed": training.seed,
        "bf16": computes_in_bf16(training.precision),
        "logging_steps": min(training.logging_steps, steps),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": None,  # `training.resume` deletes old ones, when the new one is whole
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.accelerator.is_available(),
        **more,
    }
    return TrainingArguments(**settings)


def computes_in_bf16(precision: str) -> bool:
    """Whether matrices are multiplied in bfloat16: `auto` means where the hardware does it natively, and faster.

    Raises: InputError where bf16 is demanded of hardware without it.
    """
    if precision == "fp32":
        return False
    if torch.cuda.is_available():
        native = faster = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        tiles, vectors = torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported()
        # With AVX512 bf16 alone an Intel was measured at 78 GFLOP/s a core, against 140 in fp32; AMD's gain twofold.
        native, faster = tiles or vectors, tiles or (vectors and _cpu_vendor() not in ("", "GenuineIntel"))
    if precision == "bf16" and not native:
        raise InputError("training.precision bf16: this machine does not compute in bfloat16; use auto or fp32")
    return bool(native if precision == "bf16" else faster)


def _cpu_vendor() -> str:
    """As the processor names its maker, such as GenuineIntel; empty where the kernel does not say."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
