//! The metadata that GGUF files of every family may have.

use crate::config::settings::{Group, Literal, Treatment};

/// The metadata keys of a plain decoder, without the architecture's name that they begin with: the names of llama.cpp.
pub(crate) const PLAIN: &[Group] = &[
    (
        Treatment::Read,
        &[
            "vocab_size",
            "context_length",
            "embedding_length",
            "block_count",
            "feed_forward_length",
            "expert_count",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
            "attention.value_length",
            "attention.layer_norm_rms_epsilon",
            "rope.dimension_count",
            "rope.freq_base",
            "rope.scale_linear",
            "rope.scaling.type",
            "rope.scaling.factor",
            "rope.scaling.original_context_length",
            "rope.scaling.attn_factor",
            "rope.scaling.yarn_ext_factor",
            "rope.scaling.yarn_beta_fast",
            "rope.scaling.yarn_beta_slow",
        ],
    ),
    (
        Treatment::Harmless,
        &[
            // Where the tensors came from, how an embedding is pooled of them, and how the scaling was trained.
            "tensor_data_layout",
            "pooling_type",
            "rope.scaling.finetuned",
            // Of norms that take the mean off, which there are none of.
            "attention.layer_norm_epsilon",
            // Of layers with a sliding window, which are refused.
            "rope.freq_base_swa",
            "rope.dimension_count_swa",
            "attention.key_length_swa",
            "attention.value_length_swa",
        ],
    ),
    (Treatment::Only(&[Literal::Bool(true)]), &["attention.causal"]),
    (Treatment::Only(&[Literal::Text("silu")]), &["hidden_activation"]),
    (Treatment::Only(&[Literal::Bool(false)]), &["use_parallel_residual", "swin_norm", "expert_weights_norm"]),
    // Zero stands for no such scale.
    (
        Treatment::Only(&[Literal::Number(0.0), Literal::Number(1.0)]),
        &["logit_scale", "residual_scale", "embedding_scale", "attention.output_scale", "expert_weights_scale"],
    ),
    (Treatment::Only(&[Literal::Number(1.0)]), &["rope.scaling.yarn_attn_factor"]),
    (Treatment::Only(&[Literal::Number(0.0), Literal::Bool(false)]), &["attention.sliding_window_pattern"]),
    (
        Treatment::Only(&[Literal::Number(0.0)]),
        &[
            // Attention that is scaled, capped, clamped, biased or windowed; zero stands for the usual one.
            "attention.scale",
            "attention.max_alibi_bias",
            "attention.clamp_kqv",
            "attention.sliding_window",
            "attention.temperature_length",
            "attention.temperature_scale",
            "attention.shared_kv_layers",
            "attention.key_length_mla",
            "attention.value_length_mla",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "full_attention_interval",
            "rope.dimension_sections",
            "rope.scaling.alpha",
            "rope.scaling.yarn_log_multiplier",
            // Experts, and layers that are not those of a decoder.
            "expert_used_count",
            "expert_shared_count",
            "expert_feed_forward_length",
            "expert_shared_feed_forward_length",
            "expert_chunk_feed_forward_length",
            "expert_group_count",
            "expert_group_used_count",
            "expert_group_scale",
            "expert_gating_func",
            "experts_per_group",
            "router_logit_softcapping",
            "moe_every_n_layers",
            "moe_latent_size",
            "interleave_moe_layer_step",
            "leading_dense_block_count",
            "nextn_predict_layers",
            "n_deepstack_layers",
            "embedding_length_out",
            "embedding_length_per_layer_input",
            "swiglu_clamp_exp",
            "swiglu_clamp_shexp",
        ],
    ),
];
