"""The rows of a streamed corpus: some text held out, blocks for the rest."""

import logging
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from affinage.data.blocks import Blocks
from affinage.data.corpus import is_held_out
from affinage.data.rows import PackedRows
from affinage.data.streamed import StreamedRows
from affinage.data.streams import Stream
from affinage.data.tokens import TokenStore
from affinage.errors import InputError
from affinage.recipe import Stage
from affinage.training.processes import processes
from affinage.training.writing import writing

log = logging.getLogger(__name__)

HELD_OUT_BYTES = 250_000
"""Text of a stream that the held-out loss is measured on, about."""
SEARCHED_BYTES = 128_000_000
"""Text that it is looked for in, at most."""
COUNTED_BYTES = 8_000_000
"""Text of a stream that tokens are counted in where masks depend on how frequent they are, about."""


def counted_text(stream: Stream, tokenizer: PreTrainedTokenizerFast, folder: Path) -> TokenStore:
    """A sample of the stream, the same for all its blocks and whenever the run is resumed."""
    with processes().main_process_first(), writing("the tokenised corpus", folder):
        return TokenStore.build(stream.sample(COUNTED_BYTES), tokenizer, folder / "counted")


def streamed_rows(
    stream: Stream,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    *,
    packed: Callable[[TokenStore], PackedRows],
    folder: Path,
) -> tuple[StreamedRows, PackedRows]:
    """The rows to train on and those held out, with the first block made; `packed` packs and masks a store.

    Raises: InputError where a block is smaller than a batch, or nothing is held out.
    """
    training, state = stage.training, processes()
    assert training.max_steps is not None
    batch = training.batch_size * state.num_processes
    if stage.block_tokens < batch * training.row_length:
        raise InputError(
            f"block_tokens {stage.block_tokens} is less than a batch of {batch} rows of {training.row_length} tokens; "
            f"give at least --set block_tokens={batch * training.row_length}"
        )
    log.info("reading %s shards block by block", f"{len(stream.shards):,}")
    with state.main_process_first(), writing("the tokenised corpus", folder):
        searched = stream.sample(min(SEARCHED_BYTES, round(HELD_OUT_BYTES / stage.held_out)))
        lines = (line for line in searched if is_held_out(line, stage.held_out))
        held_out = packed(TokenStore.build(lines, tokenizer, folder / "held_out"))
    if not held_out.store.tokens:
        raise InputError("nothing of the stream is held out; give another share with --set held_out=…, or more text")
    blocks = Blocks(
        stream,
        tokenizer,
        held_out,
        folder=folder,
        block_tokens=stage.block_tokens,
        held_out=stage.held_out,
        wanted=training.max_steps * training.gradient_accumulation_steps * batch,
        ahead=state.is_local_main_process,
    )
    first = blocks.note(0)
    log.info(
        "the first block has %s tokens, packed into %s rows of %d that are %.0f %% full; %s tokens held out",
        f"{first.tokens:,}",
        f"{first.rows:,}",
        training.row_length,
        100 * first.tokens / (first.rows * training.row_length),
        f"{held_out.tokens:,}",
    )
    return StreamedRows(blocks), held_out
