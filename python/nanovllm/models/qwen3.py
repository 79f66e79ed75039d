"""Qwen3, and with it Llama, as a tree of modules.

Each module's `forward` is one call of the Rust module that the engine runs, made of the parameters that the tree holds
at that moment and packed when they were first used. What attention sees is in `nanovllm.utils.context`, and its caches
are the `k_cache` and `v_cache` of each layer's `self_attn.attn`.
"""

from __future__ import annotations

from typing import Any

from nanovllm import _core
from nanovllm.layers.activation import SiluAndMul
from nanovllm.layers.attention import Attention
from nanovllm.layers.embed_head import ParallelLMHead, VocabParallelEmbedding
from nanovllm.layers.layernorm import RMSNorm
from nanovllm.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear, divide
from nanovllm.layers.module import Module, ModuleList
from nanovllm.layers.rotary_embedding import get_rope
from nanovllm.utils.context import get_context

LLAMA = ("LlamaForCausalLM", "llama")
QWEN3 = ("Qwen3ForCausalLM", "qwen3")


class Qwen3Attention(Module):
    """One tensor-parallel rank of a layer's self-attention; the caller adds up what the ranks give.

    `qk_norm` says whether the heads of queries and keys are normed. Without it they are if the projections have no
    bias, which is nano-vLLM's rule. `o_bias` gives the output projection a bias.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        max_position: int = 4096 * 32,
        head_dim: int | None = None,
        rms_norm_eps: float = 1e-06,
        qkv_bias: bool = False,
        rope_theta: float = 10000,
        rope_scaling: dict[str, Any] | None = None,
        *,
        qk_norm: bool | None = None,
        o_bias: bool = False,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        ranks: dict[str, Any] = {"tp_rank": tp_rank, "tp_size": tp_size, "device": device}
        self.total_num_heads = num_heads
        self.num_heads = divide(num_heads, tp_size)
        self.total_num_kv_heads = num_kv_heads
        self.num_kv_heads = divide(num_kv_heads, tp_size)
        self.head_dim = head_dim or hidden_size // max(num_heads, 1)
        self.q_size = self.num_heads * self.head_dim
        self.kv_size = self.num_kv_heads * self.head_dim
        self.scaling = self.head_dim**-0.5
        self.qkv_bias = qkv_bias
        self._core = _core.Qwen3(device=device)

        self.qkv_proj = QKVParallelLinear(hidden_size, self.head_dim, num_heads, num_kv_heads, qkv_bias, **ranks)
        self.o_proj = RowParallelLinear(num_heads * self.head_dim, hidden_size, o_bias, **ranks)
        if isinstance(rope_scaling, dict):
            rope_theta = rope_scaling.get("rope_theta", rope_theta)
        self.rotary_emb = get_rope(
            self.head_dim, self.head_dim, max_position, rope_theta, rope_scaling=rope_scaling, device=device
        )
        self.attn = Attention(self.num_heads, self.head_dim, self.scaling, self.num_kv_heads, device=device)
        normed = not qkv_bias if qk_norm is None else qk_norm
        self.q_norm = RMSNorm(self.head_dim, rms_norm_eps, device=device) if normed else None
        self.k_norm = RMSNorm(self.head_dim, rms_norm_eps, device=device) if normed else None

    def forward(self, positions: Any, hidden_states: Any) -> Any:
        """`hidden_states [rows, hidden_size]` at `positions [rows]` to the rank's term of the output, of the same
        shape.

        Raises ValueError for a context that does not fit the rows or the caches, and for parts that do not fit each
        other.
        """
        return self._core.attention(self, positions, hidden_states, get_context())


class Qwen3MLP(Module):
    """One tensor-parallel rank of a layer's gated feed-forward; the caller adds up what the ranks give.

    `bias` gives both projections a bias. Raises ValueError for a `hidden_act` other than "silu".
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        hidden_act: str,
        *,
        bias: bool = False,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        if hidden_act != "silu":
            raise ValueError(f'hidden_act must be "silu", got {hidden_act!r}')
        ranks: dict[str, Any] = {"tp_rank": tp_rank, "tp_size": tp_size, "device": device}
        self.gate_up_proj = MergedColumnParallelLinear(hidden_size, [intermediate_size] * 2, bias, **ranks)
        self.down_proj = RowParallelLinear(intermediate_size, hidden_size, bias, **ranks)
        self.act_fn = SiluAndMul(device=device)
        self._core = _core.Qwen3(device=device)

    def forward(self, x: Any) -> Any:
        """`x [rows, hidden_size]` to the rank's term of the output, of the same shape."""
        return self._core.mlp(self, x)


class Qwen3DecoderLayer(Module):
    """One layer of the decoder.

    `config` is anything with the attributes of a config.json. Whether heads are normed and projections have biases
    follows the architecture that it names (`architectures` or `model_type`), and nano-vLLM's rule where that is not
    known.
    """

    def __init__(self, config: Any, *, device: str = "cpu") -> None:
        architecture = _architecture(config)
        known = architecture in (*QWEN3, *LLAMA)
        bias = getattr(config, "attention_bias", not known)
        self.self_attn = Qwen3Attention(
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            max_position=config.max_position_embeddings,
            rms_norm_eps=config.rms_norm_eps,
            qkv_bias=bias,
            head_dim=getattr(config, "head_dim", None),
            rope_theta=getattr(config, "rope_theta", 1000000),
            rope_scaling=getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None),
            qk_norm=architecture in QWEN3 if known else None,
            o_bias=bias and known,
            device=device,
        )
        self.mlp = Qwen3MLP(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            hidden_act=config.hidden_act,
            bias=getattr(config, "mlp_bias", False),
            device=device,
        )
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, device=device)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, device=device)
        self._core = _core.Qwen3(device=device)

    def forward(self, positions: Any, hidden_states: Any, residual: Any | None) -> tuple[Any, Any]:
        """The layer's output, which is not yet added to the residual stream, and that stream.

        All of them are `[rows, hidden_size]`. The first layer has no residual: its `hidden_states` are the stream.
        """
        return self._core.decoder_layer(self, positions, hidden_states, residual, get_context())


class Qwen3Model(Module):
    """The decoder without its output projection, and without tensor parallelism.

    `config` is what `Qwen3DecoderLayer` takes.
    """

    def __init__(self, config: Any, *, device: str = "cpu") -> None:
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size, device=device)
        self.layers = ModuleList(Qwen3DecoderLayer(config, device=device) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, device=device)
        self._core = _core.Qwen3(device=device)

    def forward(self, input_ids: Any, positions: Any) -> Any:
        """Token ids `[rows]` at `positions [rows]` to normed hidden states `[rows, hidden_size]`.

        The result is of the embedding's type. Raises ValueError for what `Qwen3Attention.forward` refuses.
        """
        return self._core.model(self, input_ids, positions, get_context())


class Qwen3ForCausalLM(Module):
    """The decoder with its output projection, without tensor parallelism. `config` is what `Qwen3DecoderLayer` takes.

    Where `config.tie_word_embeddings` is true, `lm_head.weight` is the embedding's own parameter.
    """

    packed_modules_mapping = {  # noqa: RUF012 - nano-vLLM has it as a plain attribute of the class
        "q_proj": ("qkv_proj", "q"),
        "k_proj": ("qkv_proj", "k"),
        "v_proj": ("qkv_proj", "v"),
        "gate_proj": ("gate_up_proj", 0),
        "up_proj": ("gate_up_proj", 1),
    }

    def __init__(self, config: Any, *, device: str = "cpu") -> None:
        self.model = Qwen3Model(config, device=device)
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size, device=device)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids: Any, positions: Any) -> Any:
        """Token ids `[rows]` at `positions [rows]` to normed hidden states `[rows, hidden_size]`, by `Qwen3Model`."""
        return self.model(input_ids, positions)

    def compute_logits(self, hidden_states: Any) -> Any:
        """Logits of hidden states; in prefill, of the last row of each sequence only, `[num_seqs, vocab_size]`."""
        return self.lm_head(hidden_states)


def _architecture(config: Any) -> str | None:
    """The architecture that a config names, by its first class or else by its type; None if it names none."""
    listed = getattr(config, "architectures", None) or [getattr(config, "model_type", None)]
    name = listed[0]
    return name if isinstance(name, str) else None
