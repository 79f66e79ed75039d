"""nano-vLLM's public names at commit bb823b3: what a program that reaches into its modules can call, and with what.

One line for each module, then `Class(parameters of its constructor)`, `.method(parameters)`, `.property` and
`function(parameters)`; `**` takes any more keywords.
"""

from __future__ import annotations

NAMES = """
config:
  Config(model, max_num_batched_tokens, max_num_seqs, max_model_len, gpu_memory_utilization, tensor_parallel_size, \
enforce_eager, hf_config, eos, kvcache_block_size, num_kvcache_blocks)
engine.block_manager:
  Block(block_id)
    .update(hash, token_ids)
    .reset()
  BlockManager(num_blocks, block_size)
    .compute_hash(token_ids, prefix)
    .can_allocate(seq)
    .allocate(seq, num_cached_blocks)
    .deallocate(seq)
    .can_append(seq)
    .may_append(seq)
    .hash_blocks(seq)
engine.llm_engine:
  LLMEngine(model, **)
    .exit()
    .add_request(prompt, sampling_params)
    .step()
    .is_finished()
    .generate(prompts, sampling_params, use_tqdm)
engine.model_runner:
  ModelRunner(config, rank, event)
    .exit()
    .loop()
    .read_shm()
    .write_shm(method_name)
    .call(method_name)
    .warmup_model()
    .allocate_kv_cache()
    .prepare_block_tables(seqs)
    .prepare_prefill(seqs)
    .prepare_decode(seqs)
    .prepare_sample(seqs)
    .run_model(input_ids, positions, is_prefill)
    .run(seqs, is_prefill)
    .capture_cudagraph()
engine.scheduler:
  Scheduler(config)
    .is_finished()
    .add(seq)
    .schedule()
    .preempt(seq)
    .postprocess(seqs, token_ids, is_prefill)
engine.sequence:
  SequenceStatus
  Sequence(token_ids, sampling_params)
    .__len__()
    .__getitem__(key)
    .is_finished
    .num_completion_tokens
    .prompt_token_ids
    .completion_token_ids
    .num_blocks
    .last_block_num_tokens
    .block(i)
    .append_token(token_id)
    .__getstate__()
    .__setstate__(state)
layers.activation:
  SiluAndMul
    .forward(x)
layers.attention:
  store_kvcache_kernel(key_ptr, key_stride, value_ptr, value_stride, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, D)
  store_kvcache(key, value, k_cache, v_cache, slot_mapping)
  Attention(num_heads, head_dim, scale, num_kv_heads)
    .forward(q, k, v)
layers.embed_head:
  VocabParallelEmbedding(num_embeddings, embedding_dim)
    .weight_loader(param, loaded_weight)
    .forward(x)
  ParallelLMHead(num_embeddings, embedding_dim, bias)
    .forward(x)
layers.layernorm:
  RMSNorm(hidden_size, eps)
    .rms_forward(x)
    .add_rms_forward(x, residual)
    .forward(x, residual)
layers.linear:
  divide(numerator, denominator)
  LinearBase(input_size, output_size, bias, tp_dim)
    .forward(x)
  ReplicatedLinear(input_size, output_size, bias)
    .weight_loader(param, loaded_weight)
    .forward(x)
  ColumnParallelLinear(input_size, output_size, bias)
    .weight_loader(param, loaded_weight)
    .forward(x)
  MergedColumnParallelLinear(input_size, output_sizes, bias)
    .weight_loader(param, loaded_weight, loaded_shard_id)
  QKVParallelLinear(hidden_size, head_size, total_num_heads, total_num_kv_heads, bias)
    .weight_loader(param, loaded_weight, loaded_shard_id)
  RowParallelLinear(input_size, output_size, bias)
    .weight_loader(param, loaded_weight)
    .forward(x)
layers.rotary_embedding:
  apply_rotary_emb(x, cos, sin)
  RotaryEmbedding(head_size, rotary_dim, max_position_embeddings, base)
    .forward(positions, query, key)
  get_rope(head_size, rotary_dim, max_position, base)
layers.sampler:
  Sampler
    .forward(logits, temperatures)
llm:
  LLM
models.qwen3:
  Qwen3Attention(hidden_size, num_heads, num_kv_heads, max_position, head_dim, rms_norm_eps, qkv_bias, rope_theta, \
rope_scaling)
    .forward(positions, hidden_states)
  Qwen3MLP(hidden_size, intermediate_size, hidden_act)
    .forward(x)
  Qwen3DecoderLayer(config)
    .forward(positions, hidden_states, residual)
  Qwen3Model(config)
    .forward(input_ids, positions)
  Qwen3ForCausalLM(config)
    .forward(input_ids, positions)
    .compute_logits(hidden_states)
sampling_params:
  SamplingParams(temperature, max_tokens, ignore_eos)
utils.context:
  Context(is_prefill, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, slot_mapping, context_lens, \
block_tables)
  get_context()
  set_context(is_prefill, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, slot_mapping, context_lens, \
block_tables)
  reset_context()
utils.loader:
  default_weight_loader(param, loaded_weight)
  load_model(model, path)
"""


def entries() -> list[tuple[str, str, list[str] | None]]:
    """Module, dotted name, and parameters in order; None for a property or an enumeration."""
    found, module, owner = [], "", ""
    for line in NAMES.strip().splitlines():
        if not line.startswith(" "):
            module = line.removesuffix(":")
            continue
        name, _, parameters = line.strip().partition("(")
        if name.startswith("."):
            name = owner + name
        else:
            owner = name
        listed = [p for p in parameters.removesuffix(")").split(", ") if p] if "(" in line else None
        found.append((module, name, listed))
    return found
