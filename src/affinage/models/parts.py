"""What an architecture's parts are called: the columns of the table in `layout` and `families`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names of an architecture's parts. Module paths are relative to the masked language model or to a layer.

    "" where an architecture has no such part, or where nothing needs its name.
    """

    model_type: str
    base: str
    """the encoder without its head"""
    word_embeddings: str
    position_embeddings: str = ""
    token_type_embeddings: str | None = None
    embedding_norm: str = ""
    layers: str
    """the list of layers; an architecture that keeps a layer's parts in several has the others in `more_layers`, and
    what lies in a layer is named with its list: `attentions.q_lin`"""
    more_layers: tuple[str, ...] = ()
    query: str
    key: str
    value: str
    """the same module three times: it gives queries, keys and values one after another"""
    attention_output: str = ""
    attention_norm: str = ""
    intermediate: str = ""
    output: str = ""
    output_norm: str = ""
    head_dense: str = ""
    """"": the vocabulary projection follows the last hidden states"""
    head_norm: str = ""
    decoder: str
    """the vocabulary projection, or the word embeddings where it is not a module of its own"""
    more_decoder: str = ""
    """where the decoder is narrower than the head: the rest of the projection (H - H', V)"""
    decoder_bias: str = ""
    """where the projection's bias is not the decoder's"""
    next_sentence: str = ""
    """the head on the pooled first token that says whether a second text follows; not in the masked language model"""
    head_activation: str | None = None
    """name of the config entry that holds it; None: always GELU"""
    positions_after_pad: bool = False
    """positions count from the pad token's id + 1: the rows of the position table before it are used by no token"""
    num_hidden_layers: str = "num_hidden_layers"
    """config entry for the number of layers"""
    intermediate_size: str = "intermediate_size"
    """config entry for the width of the feed-forward network; "": it is 4 times the hidden size"""
    dropouts: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    """config entries for the dropout of hidden states and of attention"""
    packed_mask: Literal["base", "kinds", "encoder", "layers"] = "base"
    """what takes the mask of packed rows: the base (B, 1, T, T), or one for each kind of attention; or, as its second
    argument (B, T, T), the module around the layers, or each of them"""
    keeps_cache: bool = False
    """the base takes a cache of keys and values, and makes one where it is given none"""
    more_positions: tuple[str, ...] = ()
    """maps of positions to queries or keys that a layer may have besides, as wide as these"""
    norms_first: bool = False
    """norms come before attention and the feed-forward network, not after"""
    final_norm: str = ""
    """the norm after the last layer"""
    more_in_scores: str = ""
    """why attention scores are more than products of queries and keys"""
    gated: bool = False
    """the feed-forward network has a gate: three maps instead of two"""
    gate: str = ""
    """of a gated one the gate's map; "": `intermediate` gives both, the gate last"""
    shares_layers: bool = False
    """one layer's weights serve for all"""

    @property
    def whole(self) -> bool:
        """Every part has a name here, so that weights can go to another architecture, or be cut."""
        return bool(self.position_embeddings and self.cuttable and self.head_dense)

    @property
    def cuttable(self) -> bool:
        """Every map of a layer has a name here, so that heads and neurons can be taken out."""
        return bool(self.attention_output)
