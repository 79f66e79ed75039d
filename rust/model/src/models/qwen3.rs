//! Qwen3, and with it Llama: the same decoder, without the norms on query and key heads and with biases where the
//! configuration asks for them.

use nanovllm_backend::{Backend, Context};

use super::{AttentionBuffers, Buffers, HeadBuffers, MlpBuffers};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::activation::SiluAndMul;
use crate::layers::attention::Attention;
use crate::layers::embed_head::{ParallelLmHead, VocabParallelEmbedding};
use crate::layers::layernorm::RmsNorm;
use crate::layers::linear::{Linear, LinearLayouts};
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::sharding::TpRank;
use crate::weights::Weights;

/// One slice of a step.
pub struct Slice<'a> {
    /// Token ids, `[rows]`.
    pub input_ids: &'a [u32],
    /// Position of each row in its sequence, `[rows]`.
    pub positions: &'a [u32],
    /// The sequences the rows belong to.
    pub context: Context<'a>,
}

/// Self-attention of one layer.
pub struct Qwen3Attention<B: Backend> {
    /// Queries, keys and values as one projection.
    pub qkv_proj: Linear<B>,
    /// Back to the residual stream.
    pub o_proj: Linear<B>,
    /// Norms of query and key heads.
    pub qk_norm: Option<(RmsNorm<B>, RmsNorm<B>)>,
    /// The heads, and the layer of the cache they use.
    pub attn: Attention,
}

impl<B: Backend> Qwen3Attention<B> {
    fn load(weights: &mut Weights<'_, B>, prefix: &str, config: &ModelConfig, layer: usize) -> Result<Self> {
        let (heads, hidden, tp) = (config.heads(), config.hidden_size, TpRank::SINGLE);
        let mut norm =
            |name: &str| RmsNorm::load(weights, &format!("{prefix}.{name}"), heads.head_dim, config.rms_norm_eps);
        let qk_norm = if config.qk_norm { Some((norm("q_norm")?, norm("k_norm")?)) } else { None };
        let qkv = LinearLayouts::qkv_parallel(hidden, &heads, config.qkv_bias, tp)?;
        let o = LinearLayouts::row_parallel(heads.q_size(), hidden, config.o_bias, tp)?;
        Ok(Self {
            qkv_proj: Linear::load(weights, &format!("{prefix}.qkv_proj"), qkv)?,
            o_proj: Linear::load(weights, &format!("{prefix}.o_proj"), o)?,
            qk_norm,
            attn: Attention { heads, layer },
        })
    }

    /// `x` to `out`, both `[rows, hidden]`; keys and values go into the cache.
    pub fn forward(
        &self,
        backend: &B,
        x: &B::Tensor,
        rotary: &RotaryEmbedding<B>,
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut AttentionBuffers<B>,
        out: &mut B::Tensor,
    ) {
        let AttentionBuffers { qkv, attention } = buffers;
        self.qkv_proj.forward(backend, x, qkv);
        let qk_norm = self.qk_norm.as_ref().map(|(q, k)| (q, k));
        self.attn.forward(backend, qkv, qk_norm, rotary, slice.positions, cache, &slice.context, attention);
        self.o_proj.forward(backend, attention, out);
    }
}

/// The gated feed-forward of one layer (Shazeer 2020).
pub struct Qwen3Mlp<B: Backend> {
    /// Gates and values as one projection.
    pub gate_up_proj: Linear<B>,
    /// Back to the residual stream.
    pub down_proj: Linear<B>,
}

impl<B: Backend> Qwen3Mlp<B> {
    fn load(weights: &mut Weights<'_, B>, prefix: &str, config: &ModelConfig) -> Result<Self> {
        let (hidden, intermediate, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        let tp = TpRank::SINGLE;
        let gate_up = LinearLayouts::column_parallel(hidden, &[intermediate; 2], bias, tp)?;
        let down = LinearLayouts::row_parallel(intermediate, hidden, bias, tp)?;
        Ok(Self {
            gate_up_proj: Linear::load(weights, &format!("{prefix}.gate_up_proj"), gate_up)?,
            down_proj: Linear::load(weights, &format!("{prefix}.down_proj"), down)?,
        })
    }

    /// `x` to `out`, both `[rows, hidden]`.
    pub fn forward(&self, backend: &B, x: &B::Tensor, buffers: &mut MlpBuffers<B>, out: &mut B::Tensor) {
        let MlpBuffers { gate_up, activation } = buffers;
        self.gate_up_proj.forward(backend, x, gate_up);
        SiluAndMul::forward(backend, gate_up, activation);
        self.down_proj.forward(backend, activation, out);
    }
}

/// One layer of the decoder.
pub struct Qwen3DecoderLayer<B: Backend> {
    /// Its first module.
    pub self_attn: Qwen3Attention<B>,
    /// Its second module.
    pub mlp: Qwen3Mlp<B>,
    /// The norm before the first.
    pub input_layernorm: RmsNorm<B>,
    /// The norm before the second.
    pub post_attention_layernorm: RmsNorm<B>,
}

impl<B: Backend> Qwen3DecoderLayer<B> {
    fn load(weights: &mut Weights<'_, B>, prefix: &str, config: &ModelConfig, layer: usize) -> Result<Self> {
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let mut norm = |name: &str| RmsNorm::load(weights, &format!("{prefix}.{name}"), hidden, eps);
        let (input, post) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
        Ok(Self {
            self_attn: Qwen3Attention::load(weights, &format!("{prefix}.self_attn"), config, layer)?,
            mlp: Qwen3Mlp::load(weights, &format!("{prefix}.mlp"), config)?,
            input_layernorm: input,
            post_attention_layernorm: post,
        })
    }

    /// Adds `buffers.hidden` to `buffers.residual`, runs both modules, and leaves what the second gave in `buffers.hidden`.
    /// The first layer has nothing to add: the residual stream is the embedding.
    pub fn forward(
        &self,
        backend: &B,
        is_first: bool,
        rotary: &RotaryEmbedding<B>,
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut Buffers<B>,
    ) {
        let Buffers { normed, hidden, residual, attention, mlp } = buffers;
        if is_first {
            self.input_layernorm.forward(backend, residual, normed);
        } else {
            self.input_layernorm.add_forward(backend, hidden, residual, normed);
        }
        self.self_attn.forward(backend, normed, rotary, slice, cache, attention, hidden);
        self.post_attention_layernorm.add_forward(backend, hidden, residual, normed);
        self.mlp.forward(backend, normed, mlp, hidden);
    }
}

/// The decoder without its output projection.
pub struct Qwen3Model<B: Backend> {
    /// Token ids to the residual stream.
    pub embed_tokens: VocabParallelEmbedding<B>,
    /// The layers, in order.
    pub layers: Vec<Qwen3DecoderLayer<B>>,
    /// The norm after the last.
    pub norm: RmsNorm<B>,
}

impl<B: Backend> Qwen3Model<B> {
    /// Runs the layers over a slice. `buffers.hidden` and `buffers.residual` then wait for the [`norm`](Self::norm), which
    /// only the rows that need logits go through.
    pub fn forward(
        &self,
        backend: &B,
        rotary: &RotaryEmbedding<B>,
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut Buffers<B>,
    ) {
        self.embed_tokens.forward(backend, slice.input_ids, &mut buffers.residual);
        for (i, layer) in self.layers.iter().enumerate() {
            layer.forward(backend, i == 0, rotary, slice, cache, buffers);
        }
    }
}

/// The decoder with its output projection.
pub struct Qwen3ForCausalLm<B: Backend> {
    /// The decoder.
    pub model: Qwen3Model<B>,
    /// The output projection.
    pub lm_head: ParallelLmHead<B>,
}

impl<B: Backend> Qwen3ForCausalLm<B> {
    /// Takes every parameter from `weights`.
    pub(crate) fn load(weights: &mut Weights<'_, B>, config: &ModelConfig) -> Result<Self> {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embed_tokens = VocabParallelEmbedding::load(weights, "model.embed_tokens", vocab, hidden)?;
        let lm_head = if config.tie_word_embeddings {
            // Some checkpoints store the tied copy too.
            weights.ignore("lm_head.weight");
            ParallelLmHead::tied(&embed_tokens)
        } else {
            ParallelLmHead::load(weights, "lm_head", vocab, hidden)?
        };
        let mut layer = |i| Qwen3DecoderLayer::load(weights, &format!("model.layers.{i}"), config, i);
        let layers = (0..config.num_hidden_layers).map(&mut layer).collect::<Result<_>>()?;
        let norm = RmsNorm::load(weights, "model.norm", hidden, config.rms_norm_eps)?;
        Ok(Self { model: Qwen3Model { embed_tokens, layers, norm }, lm_head })
    }

    /// Logits of the rows in `head.hidden` and `head.residual`, `[rows, vocab]`.
    pub(crate) fn logits(&self, backend: &B, head: &mut HeadBuffers<B>) {
        let HeadBuffers { hidden, residual, normed, logits } = head;
        self.model.norm.add_forward(backend, hidden, residual, normed);
        self.lm_head.forward(backend, normed, logits);
    }
}
