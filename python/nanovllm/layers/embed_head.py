"""The token embedding and the output projection of one tensor-parallel rank, which has an equal part of the vocabulary.

Rank and size are keyword arguments, and there is no communicator: where nano-vLLM calls `all_reduce` the caller adds up
what the ranks give, and where it calls `gather` the caller joins it.
"""

from typing import Any

from nanovllm import _core
from nanovllm._core import divide
from nanovllm.layers.module import Module, Parameter
from nanovllm.utils.context import get_context


class VocabParallelEmbedding(Module):
    """Looks up rows of `weight [num_embeddings / tp_size, embedding_dim]` by token id."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.tp_rank = tp_rank
        self.tp_size = tp_size
        self._core = _core.VocabParallel(device=device)
        self.num_embeddings = num_embeddings
        self.num_embeddings_per_partition = divide(num_embeddings, tp_size)
        self.weight = Parameter([num_embeddings], embedding_dim, tp_dim=0, tp_rank=tp_rank, tp_size=tp_size)
        self.weight.weight_loader = self.weight_loader
        self.vocab_start_idx = self.num_embeddings_per_partition * tp_rank
        self.vocab_end_idx = self.vocab_start_idx + self.num_embeddings_per_partition

    def weight_loader(self, param: _core.Parameter, loaded_weight: Any) -> None:
        """Copies the rank's part of a whole stored matrix. Raises ValueError where the shape is another."""
        param.load(loaded_weight, 0)

    def forward(self, x: Any) -> Any:
        """Token ids `x [...]` to rows `[..., embedding_dim]`, zero where another rank has the token.

        The rows are of the weight's type. Raises ValueError for an id that no rank has.
        """
        if getattr(x, "ndim", 1) != 1:
            return self.forward(x.reshape(-1)).reshape(*x.shape, self.weight.shape[1])
        return self._core.embed(x, self.weight, self.vocab_start_idx, self.num_embeddings)


class ParallelLMHead(VocabParallelEmbedding):
    """The projection to logits. There is no bias, so a true `bias` is a ValueError."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        bias: bool = False,
        *,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        if bias:
            raise ValueError("ParallelLMHead has no bias")
        super().__init__(num_embeddings, embedding_dim, tp_rank=tp_rank, tp_size=tp_size, device=device)

    def forward(self, x: Any) -> Any:
        """`x [rows, embedding_dim]` to logits `[rows, num_embeddings / tp_size]` of the rank's tokens.

        In prefill, only the last row of each sequence has logits. Whether a step is prefill, and which rows are last,
        the context of `nanovllm.utils.context` says.
        """
        context = get_context()
        if not context.is_prefill:
            return self._core.logits(x, self.weight, None)
        if context.cu_seqlens_q is None:
            raise ValueError("the context of a prefill has no cu_seqlens_q (see nanovllm.utils.context)")
        return self._core.logits(x, self.weight, context.cu_seqlens_q)
