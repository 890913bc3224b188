"""Trains the masked language model of a prepared folder: train.py PREPARED OUT --tokens 30e6.

Needs torch, transformers, safetensors and numpy, nothing else: PREPARED holds `model/` (a stock CamemBERT folder) and
`tokens.npz` (prepare.py writes both). Runs on one GPU in bfloat16, or on CPU cores, one process each, that share the
parameters and take turns at small batches. Stop it at any time: it goes on from its last checkpoint, and `--tokens`
may differ. `--minutes` stops it by itself. OUT/model is the trained model in fp16 when all tokens are seen.

What makes it quick and is exact: a batch holds texts of one length, so nothing is padded and attention needs no mask;
the last layer computes only the positions to guess (the others' outputs would be thrown away); no dropout.
`--keep 0.5` also trains the layers between the first and the last on half of the tokens of a text, those to guess and
others drawn anew for each layer, which the rest bypass (Hou et al. 2022, arXiv:2203.13240; Yao et al. 2022,
arXiv:2211.11586), until `--full-from` of all tokens are seen. It is not exact; held-out losses always use all tokens.
"""

import argparse
import ctypes
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from transformers import AutoModelForMaskedLM, AutoTokenizer

HELD_OUT_MASK = 0.15


@dataclass(frozen=True)
class Settings:
    """What a training is; written into its checkpoints."""

    tokens: int
    """real tokens to see, special tokens counted"""
    learning_rate: float = 1e-3
    warmup: float = 0.02
    decay: float = 0.4
    """share of the tokens at the end over which the learning rate falls to 0"""
    batch: int = 8_192
    """tokens of an optimizer step"""
    micro: int = 1_024
    """tokens computed at a time"""
    max_length: int = 256
    mask: float = 0.2
    keep: float = 1.0
    """share of a text's tokens that the middle layers compute, up to the share `full_from` of all tokens"""
    full_from: float = 0.8
    weight_decay: float = 0.01
    seed: int = 0


class Pieces:
    """Texts cut to one length at most, in batches of equal length."""

    def __init__(self, ids: np.ndarray, starts: np.ndarray, *, max_length: int, cls: int, sep: int) -> None:
        room = max_length - 2
        counts = -(-np.diff(starts) // room)
        owner = np.repeat(np.arange(len(counts)), counts)
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.begin = starts[:-1][owner] + nth * room
        self.length = np.minimum(starts[1:][owner] - self.begin, room)
        keep = self.length >= 4
        self.begin, self.length = self.begin[keep], self.length[keep]
        self.ids, self.cls, self.sep = ids, cls, sep

    def batches(self, micro: int, seed: int) -> list[np.ndarray]:
        """All pieces once, in shuffled batches of about `micro` tokens, each of one length."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self.begin))
        order = order[np.argsort(self.length[order], kind="stable")]
        found = []
        for same in np.split(order, np.flatnonzero(np.diff(self.length[order])) + 1):
            rows = max(1, micro // (int(self.length[same[0]]) + 2))
            found += [same[i : i + rows] for i in range(0, len(same), rows)]
        rng.shuffle(found)
        return found

    def rows(self, batch: np.ndarray) -> np.ndarray:
        """(B, T) ids with their special tokens."""
        length = int(self.length[batch[0]])
        rows = np.empty((len(batch), length + 2), dtype=np.int64)
        rows[:, 0], rows[:, -1] = self.cls, self.sep
        for row, begin in zip(rows, self.begin[batch], strict=True):
            row[1:-1] = self.ids[begin : begin + length]
        return rows


def masked_count(length: int, rate: float) -> int:
    """Positions to guess in a row of `length`, special tokens counted."""
    return max(1, round(rate * (length - 2)))


def mask(rows: np.ndarray, rate: float, mask_id: int, vocab: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """(B, T) ids -> masked ids, (B, M) positions in order and (B, M) labels; 80 % <mask>, 10 % random, 10 % kept."""
    count = masked_count(rows.shape[1], rate)
    keys = rng.random((rows.shape[0], rows.shape[1] - 2))
    chosen = np.sort(np.argpartition(keys, count - 1, axis=1)[:, :count], axis=1) + 1
    labels = np.take_along_axis(rows, chosen, axis=1)
    draw = rng.random(chosen.shape)
    # The special tokens are the first five ids (prepare.py); none is drawn.
    new = np.where(draw < 0.8, mask_id, np.where(draw < 0.9, rng.integers(5, vocab, chosen.shape), labels))
    masked = rows.copy()
    np.put_along_axis(masked, chosen, new, axis=1)
    return masked, chosen, labels


def kept(chosen: np.ndarray, length: int, share: float, layers: int, rng: np.random.Generator) -> np.ndarray:
    """(layers, B, K) positions that each layer computes: those to guess, both ends, and others at random."""
    count = min(length, max(chosen.shape[1] + 2, round(share * length)))
    keys = rng.random((layers, len(chosen), length))
    keys[:, :, [0, -1]] = -1
    np.put_along_axis(keys, np.broadcast_to(chosen, (layers, *chosen.shape)), -1, axis=2)
    return np.argpartition(keys, count - 1, axis=2)[:, :, :count]


class Encoder(nn.Module):
    """The stock model's parameters, with queries, keys and values of a layer computed by one multiplication."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        config = stock.config
        self.heads, self.eps = config.num_attention_heads, config.layer_norm_eps
        self.layers = config.num_hidden_layers
        self.first_position = config.pad_token_id + 1
        tensors = dict(stock.state_dict())
        self.table = nn.ParameterDict()
        for name, parts in merged_names(config.num_hidden_layers).items():
            value = torch.cat([tensors[part] for part in parts]).float()
            self.table[name.replace(".", "/")] = nn.Parameter(value)

    def __getitem__(self, name: str) -> Tensor:
        return self.table[name.replace(".", "/")]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self[f"{name}.weight"], self[f"{name}.bias"], self.eps)

    def forward(self, ids: Tensor, chosen: Tensor, labels: Tensor, keep: Tensor | None = None) -> Tensor:
        """Sum over the chosen positions (B, M) of -log p(label).

        `keep` (layers - 2, B, K): the positions that the layers between the first and the last compute.
        """
        first, t = self.first_position, ids.shape[1]
        x = F.embedding(ids, self["words"]) + self["positions"][first : first + t] + self["types"][0]
        x = self.norm(x, "embedding_norm")
        last = self.layers - 1
        for i in range(last):
            if keep is None or i == 0:
                x = self.layer(x, i)
            else:
                where = keep[i - 1][..., None].expand(-1, -1, x.shape[-1])
                x = x.scatter(1, where, self.layer(x.gather(1, where), i))
        x = self.layer(x, last, queries=chosen[..., None].expand(-1, -1, x.shape[-1]))
        x = self.norm(F.gelu(self.linear(x, "head_dense")), "head_norm")
        logits = F.linear(x, self["words"], self["head_bias"]).flatten(0, 1)
        return F.cross_entropy(logits.float(), labels.flatten(), reduction="sum")

    def layer(self, x: Tensor, i: int, queries: Tensor | None = None) -> Tensor:
        """(B, T, H) -> (B, T, H), or at the positions `queries` (B, M, H) alone -> (B, M, H)."""
        b, _, h = x.shape
        if queries is None:
            q, k, v = self.linear(x, f"{i}.qkv").split(h, dim=-1)
        else:
            weight, bias = self[f"{i}.qkv.weight"], self[f"{i}.qkv.bias"]
            k, v = F.linear(x, weight[h:], bias[h:]).split(h, dim=-1)
            x = x.gather(1, queries)
            q = F.linear(x, weight[:h], bias[:h])
        q, k, v = (y.view(b, -1, self.heads, h // self.heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, h)
        x = self.norm(x + self.linear(y, f"{i}.attention"), f"{i}.attention_norm")
        y = self.linear(F.gelu(self.linear(x, f"{i}.intermediate")), f"{i}.output")
        return self.norm(x + y, f"{i}.output_norm")

    def to_stock_(self, stock: nn.Module) -> None:
        """Write the parameters into a stock model."""
        tensors = stock.state_dict()
        for name, parts in merged_names(stock.config.num_hidden_layers).items():
            for part, value in zip(parts, self[name].detach().chunk(len(parts)), strict=True):
                tensors[part].copy_(value)


def merged_names(layers: int) -> dict[str, tuple[str, ...]]:
    """Our name of each parameter -> the stock names whose rows it joins."""
    names = {
        "words": ("roberta.embeddings.word_embeddings.weight",),
        "positions": ("roberta.embeddings.position_embeddings.weight",),
        "types": ("roberta.embeddings.token_type_embeddings.weight",),
        "head_bias": ("lm_head.bias",),
    }
    pairs = {
        "embedding_norm": ("roberta.embeddings.LayerNorm",),
        "head_dense": ("lm_head.dense",),
        "head_norm": ("lm_head.layer_norm",),
    }
    for i in range(layers):
        block = f"roberta.encoder.layer.{i}"
        pairs[f"{i}.qkv"] = tuple(f"{block}.attention.self.{part}" for part in ("query", "key", "value"))
        pairs[f"{i}.attention"] = (f"{block}.attention.output.dense",)
        pairs[f"{i}.attention_norm"] = (f"{block}.attention.output.LayerNorm",)
        pairs[f"{i}.intermediate"] = (f"{block}.intermediate.dense",)
        pairs[f"{i}.output"] = (f"{block}.output.dense",)
        pairs[f"{i}.output_norm"] = (f"{block}.output.LayerNorm",)
    for name, parts in pairs.items():
        for end in ("weight", "bias"):
            names[f"{name}.{end}"] = tuple(f"{part}.{end}" for part in parts)
    return names


class Shared:
    """What the processes share: parameters, moments and gradients as flat tensors, counters, a barrier."""

    def __init__(self, model: Encoder, workers: int, device: torch.device) -> None:
        # Matrices first, so that weight decay has one border.
        self.order = sorted(model.table, key=lambda name: model.table[name].dim() < 2)
        sizes = [model.table[name].numel() for name in self.order]
        self.decayed = sum(n for n, name in zip(sizes, self.order, strict=True) if model.table[name].dim() > 1)
        make = lambda: torch.zeros(sum(sizes), device=device)  # noqa: E731
        self.flat, self.moment1, self.moment2 = make(), make(), make()
        self.grads = [make() for _ in range(workers)]
        self.norms, self.sums = torch.zeros(workers), torch.zeros(workers, dtype=torch.float64)
        if device.type == "cpu":
            for tensor in (self.flat, self.moment1, self.moment2, *self.grads, self.norms, self.sums):
                tensor.share_memory_()
        self.flat.copy_(torch.cat([model.table[name].detach().flatten().to(device) for name in self.order]))
        self.counter = mp.Value("q", 0)
        self.stop = mp.Value("b", 0)
        self.barrier = mp.Barrier(workers)

    def bind_(self, model: Encoder, worker: int) -> None:
        """Make the model's parameters views of the shared ones, and its gradients of this worker's."""
        begin = 0
        for name in self.order:
            shape = model.table[name].shape
            end = begin + shape.numel()
            model.table[name].data = self.flat[begin:end].view(shape)
            model.table[name].grad = self.grads[worker][begin:end].view(shape)
            begin = end

    def take(self) -> int:
        """The number of the next small batch of this step."""
        with self.counter.get_lock():
            self.counter.value += 1
            return self.counter.value - 1


def learning_rate(seen: int, s: Settings) -> float:
    """Warm-up, level, then a straight line to 0."""
    share = seen / s.tokens
    return s.learning_rate * max(0.0, min(1.0, (share + 1e-4) / s.warmup, (1 - share) / s.decay))


def steps_of(pieces: Pieces, s: Settings, epoch: int) -> list[list[np.ndarray]]:
    """The small batches of each optimizer step of an epoch."""
    steps: list[list[np.ndarray]] = [[]]
    room = s.batch
    for batch in pieces.batches(s.micro, s.seed + epoch):
        steps[-1].append(batch)
        room -= len(batch) * (int(pieces.length[batch[0]]) + 2)
        if room <= 0:
            steps.append([])
            room = s.batch
    return [step for step in steps if step]


def work(
    worker: int, workers: int, prepared: Path, out: Path, s: Settings, shared: Shared, state: dict, minutes: float
) -> None:
    """One process: compute its share of the small batches, update its share of the parameters."""
    device = shared.flat.device
    if device.type == "cpu":
        torch.set_num_threads(1)
        libc = ctypes.CDLL("libc.so.6")  # keep freed buffers: no page faults at every step
        libc.mallopt(-4, 0), libc.mallopt(-1, 2**31 - 1)
    tokenizer = AutoTokenizer.from_pretrained(prepared / "model")
    stock = AutoModelForMaskedLM.from_pretrained(prepared / "model", dtype=torch.float32)
    model = Encoder(stock).to(device)
    shared.bind_(model, worker)
    data = np.load(prepared / "tokens.npz")
    special = {"cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id}
    train = Pieces(data["train_ids"], data["train_starts"], max_length=s.max_length, **special)
    held_out = Pieces(data["held_out_ids"], data["held_out_starts"], max_length=s.max_length, **special)
    held_out_batches = held_out.batches(s.micro, 1)[:100]
    size = shared.flat.numel()
    mine = slice(size * worker // workers, size * (worker + 1) // workers)
    decay = torch.zeros(mine.stop - mine.start, device=device)
    decay[: max(0, shared.decayed - mine.start)] = s.weight_decay
    began, log = time.time(), out / "log.jsonl"

    def loss(pieces: Pieces, batch: np.ndarray, rate: float, seed: tuple[int, ...], share: float = 1.0) -> Tensor:
        rng = np.random.default_rng(seed)
        arrays = list(mask(pieces.rows(batch), rate, tokenizer.mask_token_id, len(tokenizer), rng))
        if share < 1:
            arrays.append(kept(arrays[1], arrays[0].shape[1], share, model.layers - 2, rng))
        tensors = [torch.from_numpy(array).to(device, non_blocking=True) for array in arrays]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return model(*tensors)

    def evaluate() -> float:
        shared.sums[worker] = 0.0
        shared.barrier.wait()
        if worker == 0:
            shared.counter.value = 0
        shared.barrier.wait()
        with torch.no_grad():
            while (i := shared.take()) < len(held_out_batches):
                shared.sums[worker] += loss(held_out, held_out_batches[i], HELD_OUT_MASK, (1, i)).item()
        shared.barrier.wait()
        guesses = sum(len(b) * masked_count(int(held_out.length[b[0]]) + 2, HELD_OUT_MASK) for b in held_out_batches)
        return float(shared.sums.sum()) / guesses

    epoch, step, seen, updates = state["epoch"], state["step"], state["seen"], state["updates"]
    since, tokens_since, loss_since, logged = time.time(), 0, 0.0, 0
    while seen < s.tokens:
        for number, batches in enumerate(steps_of(train, s, epoch)):
            if number < step:
                continue
            if worker == 0:
                shared.counter.value = 0
            shared.grads[worker].zero_()
            shared.sums[worker] = 0.0
            shared.barrier.wait()
            guesses = sum(len(b) * masked_count(int(train.length[b[0]]) + 2, s.mask) for b in batches)
            total = torch.zeros((), device=device)
            share = s.keep if seen < s.full_from * s.tokens else 1.0
            while (i := shared.take()) < len(batches):
                value = loss(train, batches[i], s.mask, (s.seed, epoch, number, i), share)
                (value / guesses).backward()
                total += value.detach()
            shared.sums[worker] = total.item() / guesses
            shared.barrier.wait()
            grad = sum(g[mine] for g in shared.grads)
            shared.norms[worker] = grad.square().sum().item()
            shared.barrier.wait()
            grad = grad * min(1.0, 1.0 / (float(shared.norms.sum()) ** 0.5 + 1e-6))
            updates += 1
            rate = learning_rate(seen, s)
            m1, m2, flat = shared.moment1[mine], shared.moment2[mine], shared.flat[mine]
            m1.lerp_(grad, 0.1)
            m2.lerp_(grad.square(), 0.02)
            flat.mul_(1 - rate * decay)
            flat.addcdiv_(m1 / (1 - 0.9**updates), (m2 / (1 - 0.98**updates)).sqrt_().add_(1e-6), value=-rate)
            count = sum(len(b) * (int(train.length[b[0]]) + 2) for b in batches)
            seen += count
            tokens_since += count
            loss_since += float(shared.sums.sum())
            logged += 1
            due = minutes and time.time() - began > 60 * minutes
            if worker == 0 and due:
                shared.stop.value = 1
            shared.barrier.wait()
            last = seen >= s.tokens or shared.stop.value
            if updates % 20 == 0 or last:
                entry = {"update": updates, "tokens": seen, "loss": round(loss_since / logged, 4), "lr": rate}
                now = time.time()
                entry |= {
                    "tokens_per_second": round(tokens_since / (now - since)),
                    "seconds": round(state["seconds"] + now - began),
                }
                since, tokens_since, loss_since, logged = now, 0, 0.0, 0
                if updates % 200 == 0 or last:
                    entry["held_out"] = round(evaluate(), 4)
                    since = time.time()
                if worker == 0:
                    with log.open("a") as stream:
                        stream.write(json.dumps(entry) + "\n")
            if updates % 100 == 0 or last:
                if worker == 0:
                    progress = {"epoch": epoch, "step": number + 1, "seen": seen, "updates": updates}
                    save(out, shared, progress | {"seconds": state["seconds"] + time.time() - began}, s)
                shared.barrier.wait()
            if last:
                break
        else:
            epoch, step = epoch + 1, 0
            continue
        break
    if worker == 0 and seen >= s.tokens:
        export(model, stock, prepared, out)


def save(out: Path, shared: Shared, state: dict, s: Settings) -> None:
    """One file, written aside and renamed."""
    tensors = {"flat": shared.flat, "moment1": shared.moment1, "moment2": shared.moment2}
    note = {"state": json.dumps(state), "settings": json.dumps(vars(s))}
    save_file({key: value.cpu() for key, value in tensors.items()}, out / "checkpoint.tmp", metadata=note)
    os.replace(out / "checkpoint.tmp", out / "checkpoint.safetensors")


def export(model: Encoder, stock: nn.Module, prepared: Path, out: Path) -> None:
    """Write the stock model, after checking that it computes the same loss."""
    model, stock = model.float().cpu(), stock.eval()
    model.to_stock_(stock)
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(5, stock.config.vocab_size, (2, 40)))
    chosen = torch.tensor([[3, 7, 9], [1, 20, 38]])
    labels = torch.tensor([[8, 9, 10], [11, 12, 13]])
    with torch.no_grad():
        ours = float(model(ids, chosen, labels))
        logits = stock(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        theirs = float(
            F.cross_entropy(logits[torch.arange(2)[:, None], chosen].flatten(0, 1), labels.flatten(), reduction="sum")
        )
    if not math.isclose(ours, theirs, rel_tol=1e-4):
        raise RuntimeError(f"the stock model gives a loss of {theirs}, this one {ours}")
    stock.half().save_pretrained(out / "model")
    AutoTokenizer.from_pretrained(prepared / "model").save_pretrained(out / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=float, required=True)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes on the CPU")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so many minutes; 0: never")
    for name, default in (
        ("learning_rate", 1e-3),
        ("batch", 8_192),
        ("micro", 1_024),
        ("max_length", 256),
        ("mask", 0.2),
        ("keep", 1.0),
        ("full_from", 0.8),
    ):
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args())
    prepared, out, workers, minutes = (given.pop(key) for key in ("prepared", "out", "workers", "minutes"))
    s = Settings(**given | {"tokens": int(given["tokens"])})
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers = 1 if device.type == "cuda" else workers
    torch.set_num_threads(1)  # before the fork: a child must not inherit a pool of threads
    shared = Shared(
        Encoder(AutoModelForMaskedLM.from_pretrained(prepared / "model", dtype=torch.float32)), workers, device
    )
    state = {"epoch": 0, "step": 0, "seen": 0, "updates": 0, "seconds": 0.0}
    kept = out / "checkpoint.safetensors"
    if kept.is_file():
        from safetensors import safe_open

        with safe_open(kept, "pt") as file:
            state = json.loads(file.metadata()["state"])
        for name, tensor in load_file(kept).items():
            getattr(shared, name).copy_(tensor)
    arguments = (workers, prepared, out, s, shared, state, minutes)
    if workers == 1:
        work(0, *arguments)
    else:
        mp.start_processes(work, arguments, nprocs=workers, start_method="fork")


if __name__ == "__main__":
    main()
