"""Linear layers of one tensor-parallel rank.

nano-vLLM asks `torch.distributed` for rank and size and adds up over ranks itself. Here both are keyword arguments, and
there is no communicator: each layer computes what its rank contributes, and where nano-vLLM calls `all_reduce` the
caller adds up.
"""

from collections.abc import Sequence
from typing import Any

from nanovllm import _core
from nanovllm._core import divide
from nanovllm.layers.module import Module, Parameter

__all__ = [
    "ColumnParallelLinear",
    "LinearBase",
    "MergedColumnParallelLinear",
    "QKVParallelLinear",
    "ReplicatedLinear",
    "RowParallelLinear",
    "divide",
]


class LinearBase(Module):
    """What the linear layers share: `weight [output_size, input_size]`, `bias [output_size]` or None.

    The sizes are the rank's own. `tp_dim` is the axis split over ranks: 0 outputs, 1 inputs, None neither. `shards` are
    the outputs, over all ranks, of the stored tensors that the layer stacks; without it the layer has one.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = False,
        tp_dim: int | None = None,
        *,
        shards: Sequence[int] | None = None,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.tp_dim = tp_dim
        self.tp_rank = tp_rank
        self.tp_size = tp_size
        self._core = _core.Linear(device=device)
        inputs = input_size * (tp_size if tp_dim == 1 else 1)
        outputs = [output_size * (tp_size if tp_dim == 0 else 1)] if shards is None else list(shards)
        self.weight = self._parameter(outputs, inputs)
        self.bias = self._parameter(outputs, None) if bias else None

    def _parameter(self, outputs: list[int], inputs: int | None) -> Parameter:
        parameter = Parameter(outputs, inputs, tp_dim=self.tp_dim, tp_rank=self.tp_rank, tp_size=self.tp_size)
        parameter.weight_loader = self.weight_loader
        return parameter

    def weight_loader(self, param: _core.Parameter, loaded_weight: Any) -> None:
        """Copies the rank's part of a whole stored weight or bias. Raises ValueError where the shape is another."""
        param.load(loaded_weight, 0)

    def forward(self, x: Any) -> Any:
        """`x [..., input_size]` to `[..., output_size]`. Each kind of linear layer defines it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class ReplicatedLinear(LinearBase):
    """A linear layer that every rank has whole."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = False,
        *,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        super().__init__(input_size, output_size, bias, tp_rank=tp_rank, tp_size=tp_size, device=device)

    def forward(self, x: Any) -> Any:
        """`x [..., input_size]` to `[..., output_size]`."""
        return self._core.forward(x, self.weight, self.bias)


class ColumnParallelLinear(LinearBase):
    """A linear layer of which a rank has an equal part of the outputs. `output_size` is that of all ranks."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = False,
        *,
        shards: Sequence[int] | None = None,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        ranks = {"tp_rank": tp_rank, "tp_size": tp_size}
        super().__init__(input_size, divide(output_size, tp_size), bias, 0, shards=shards, device=device, **ranks)

    def forward(self, x: Any) -> Any:
        """`x [..., input_size]` to the rank's outputs `[..., output_size / tp_size]`."""
        return self._core.forward(x, self.weight, self.bias)


class MergedColumnParallelLinear(ColumnParallelLinear):
    """Projections of one input, stacked. A rank has an equal part of each; ValueError if that cannot be."""

    def __init__(
        self,
        input_size: int,
        output_sizes: list[int],
        bias: bool = False,
        *,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.output_sizes = output_sizes
        ranks = {"tp_rank": tp_rank, "tp_size": tp_size}
        super().__init__(input_size, sum(output_sizes), bias, shards=output_sizes, device=device, **ranks)

    def weight_loader(self, param: _core.Parameter, loaded_weight: Any, loaded_shard_id: int | None = None) -> None:
        """Copies the rank's part of projection number `loaded_shard_id`, a whole stored weight or bias.

        Raises ValueError for a number there is no projection of, and where the shape is another.
        """
        if loaded_shard_id is None:
            raise ValueError("loaded_shard_id is needed: the layer is made of several projections")
        param.load(loaded_weight, loaded_shard_id)


class QKVParallelLinear(ColumnParallelLinear):
    """The projections to queries, keys and values, stacked. A rank has an equal part of the heads of each.

    Without `total_num_kv_heads` there are as many heads of keys and values as of queries.
    """

    def __init__(
        self,
        hidden_size: int,
        head_size: int,
        total_num_heads: int,
        total_num_kv_heads: int | None = None,
        bias: bool = False,
        *,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        total_num_kv_heads = total_num_kv_heads or total_num_heads
        self.head_size = head_size
        self.num_heads = divide(total_num_heads, tp_size)
        self.num_kv_heads = divide(total_num_kv_heads, tp_size)
        shards = [heads * head_size for heads in (total_num_heads, total_num_kv_heads, total_num_kv_heads)]
        super().__init__(hidden_size, sum(shards), bias, shards=shards, tp_rank=tp_rank, tp_size=tp_size, device=device)

    def weight_loader(self, param: _core.Parameter, loaded_weight: Any, loaded_shard_id: str | None = None) -> None:
        """Copies the rank's heads of the projection "q", "k" or "v", a whole stored weight or bias.

        Raises ValueError for another name, and where the shape is another.
        """
        if loaded_shard_id not in ("q", "k", "v"):
            raise ValueError(f'loaded_shard_id must be "q", "k" or "v", got {loaded_shard_id!r}')
        param.load(loaded_weight, "qkv".index(loaded_shard_id))


class RowParallelLinear(LinearBase):
    """A linear layer of which a rank has an equal part of the inputs. `input_size` is that of all ranks.

    The outputs of all ranks add up to the layer's. The caller adds them up; rank 0 alone adds the bias.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = False,
        *,
        tp_rank: int = 0,
        tp_size: int = 1,
        device: str = "cpu",
    ) -> None:
        inputs = divide(input_size, tp_size)
        super().__init__(inputs, output_size, bias, 1, tp_rank=tp_rank, tp_size=tp_size, device=device)

    def forward(self, x: Any) -> Any:
        """The rank's inputs `x [..., input_size / tp_size]` to its term of the output, `[..., output_size]`."""
        return self._core.forward(x, self.weight, self.bias if self.tp_rank == 0 else None)
