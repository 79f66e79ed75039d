//! Qwen3, and with it Llama: the same decoder, without the norms on query and key heads and with biases where the
//! configuration asks for them.

use nanovllm_backend::{Backend, Context};

use crate::config::ModelConfig;
use crate::error::Result;
use crate::layers::activation::SiluAndMul;
use crate::layers::attention::Attention;
use crate::layers::embed_head::{ParallelLmHead, VocabParallelEmbedding};
use crate::layers::layernorm::RmsNorm;
use crate::layers::linear::{Linear, MergedColumnParallelLinear, QkvParallelLinear, RowParallelLinear};
use crate::layers::rotary_embedding::RotaryEmbedding;
use crate::weights::Weights;

/// Activations of one slice of a step, allocated once.
pub(crate) struct Buffers<B: Backend> {
    /// What a module takes, `[rows, hidden]`.
    normed: B::Tensor,
    /// What a module gives, not yet added to the residual stream, `[rows, hidden]`.
    pub(crate) hidden: B::Tensor,
    /// The residual stream, `[rows, hidden]`.
    pub(crate) residual: B::Tensor,
    /// `[rows, q + k + v]`.
    qkv: B::Tensor,
    /// Attention's output, `[rows, q]`.
    attention: B::Tensor,
    /// `[rows, 2 intermediate]`.
    gate_up: B::Tensor,
    /// `[rows, intermediate]`.
    activation: B::Tensor,
}

impl<B: Backend> Buffers<B> {
    /// Buffers for slices of at most `rows` rows.
    pub(crate) fn new(backend: &B, config: &ModelConfig, rows: usize) -> Result<Self> {
        let (hidden, intermediate, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        Ok(Self {
            normed: backend.tensor(rows, hidden)?,
            hidden: backend.tensor(rows, hidden)?,
            residual: backend.tensor(rows, hidden)?,
            qkv: backend.tensor(rows, heads.qkv_size())?,
            attention: backend.tensor(rows, heads.q_size())?,
            gate_up: backend.tensor(rows, 2 * intermediate)?,
            activation: backend.tensor(rows, intermediate)?,
        })
    }
}

/// One slice of a step.
pub(crate) struct Slice<'a> {
    pub(crate) input_ids: &'a [u32],
    pub(crate) positions: &'a [u32],
    pub(crate) context: Context<'a>,
}

struct Qwen3Attention<B: Backend> {
    qkv_proj: Linear<B>,
    o_proj: Linear<B>,
    qk_norm: Option<(RmsNorm<B>, RmsNorm<B>)>,
    attn: Attention,
}

impl<B: Backend> Qwen3Attention<B> {
    fn load(weights: &mut Weights<'_, B>, prefix: &str, config: &ModelConfig, layer: usize) -> Result<Self> {
        let (heads, hidden, eps) = (config.heads(), config.hidden_size, config.rms_norm_eps);
        let mut norm = |name: &str| RmsNorm::load(weights, &format!("{prefix}.{name}"), heads.head_dim, eps);
        let qk_norm = if config.qk_norm { Some((norm("q_norm")?, norm("k_norm")?)) } else { None };
        let qkv = format!("{prefix}.qkv_proj");
        let o = format!("{prefix}.o_proj");
        Ok(Self {
            qkv_proj: QkvParallelLinear::load(weights, &qkv, hidden, &heads, config.qkv_bias)?,
            o_proj: RowParallelLinear::load(weights, &o, heads.q_size(), hidden, config.o_bias)?,
            qk_norm,
            attn: Attention { heads, layer },
        })
    }

    /// `buffers.normed` to `buffers.hidden`.
    fn forward(
        &self,
        backend: &B,
        rotary: &RotaryEmbedding<B>,
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut Buffers<B>,
    ) {
        let Buffers { normed, hidden, qkv, attention, .. } = buffers;
        self.qkv_proj.forward(backend, normed, qkv);
        let qk_norm = self.qk_norm.as_ref().map(|(q, k)| (q, k));
        self.attn.forward(backend, qkv, qk_norm, rotary, slice.positions, cache, &slice.context, attention);
        self.o_proj.forward(backend, attention, hidden);
    }
}

struct Qwen3Mlp<B: Backend> {
    gate_up_proj: Linear<B>,
    down_proj: Linear<B>,
}

impl<B: Backend> Qwen3Mlp<B> {
    fn load(weights: &mut Weights<'_, B>, prefix: &str, config: &ModelConfig) -> Result<Self> {
        let (hidden, intermediate, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
        let gate_up = format!("{prefix}.gate_up_proj");
        let down = format!("{prefix}.down_proj");
        Ok(Self {
            gate_up_proj: MergedColumnParallelLinear::load(weights, &gate_up, hidden, &[intermediate; 2], bias)?,
            down_proj: RowParallelLinear::load(weights, &down, intermediate, hidden, bias)?,
        })
    }

    /// `buffers.normed` to `buffers.hidden`.
    fn forward(&self, backend: &B, buffers: &mut Buffers<B>) {
        let Buffers { normed, hidden, gate_up, activation, .. } = buffers;
        self.gate_up_proj.forward(backend, normed, gate_up);
        SiluAndMul::forward(backend, gate_up, activation);
        self.down_proj.forward(backend, activation, hidden);
    }
}

struct Qwen3DecoderLayer<B: Backend> {
    self_attn: Qwen3Attention<B>,
    mlp: Qwen3Mlp<B>,
    input_layernorm: RmsNorm<B>,
    post_attention_layernorm: RmsNorm<B>,
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
}

/// The decoder with its output projection.
pub(crate) struct Qwen3ForCausalLm<B: Backend> {
    embed_tokens: VocabParallelEmbedding<B>,
    layers: Vec<Qwen3DecoderLayer<B>>,
    norm: RmsNorm<B>,
    lm_head: ParallelLmHead<B>,
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
        Ok(Self { embed_tokens, layers, norm, lm_head })
    }

    /// Runs the layers over a slice; `buffers.hidden` and `buffers.residual` then wait for [`logits`](Self::logits).
    pub(crate) fn forward(
        &self,
        backend: &B,
        rotary: &RotaryEmbedding<B>,
        slice: &Slice<'_>,
        cache: &mut B::KvCache,
        buffers: &mut Buffers<B>,
    ) {
        for (i, layer) in self.layers.iter().enumerate() {
            if i == 0 {
                self.embed_tokens.forward(backend, slice.input_ids, &mut buffers.residual);
                layer.input_layernorm.forward(backend, &buffers.residual, &mut buffers.normed);
            } else {
                add_norm(backend, &layer.input_layernorm, buffers);
            }
            layer.self_attn.forward(backend, rotary, slice, cache, buffers);
            add_norm(backend, &layer.post_attention_layernorm, buffers);
            layer.mlp.forward(backend, buffers);
        }
    }

    /// Logits of the rows in `head.hidden` and `head.residual`, `[rows, vocab]`.
    pub(crate) fn logits(&self, backend: &B, head: &mut HeadBuffers<B>) {
        let HeadBuffers { hidden, residual, normed, logits } = head;
        self.norm.add_forward(backend, hidden, residual, normed);
        self.lm_head.forward(backend, normed, logits);
    }
}

/// Adds what the last module gave to the residual stream and norms it for the next.
fn add_norm<B: Backend>(backend: &B, norm: &RmsNorm<B>, buffers: &mut Buffers<B>) {
    norm.add_forward(backend, &buffers.hidden, &mut buffers.residual, &mut buffers.normed);
}

/// Activations of the rows that need logits.
pub(crate) struct HeadBuffers<B: Backend> {
    pub(crate) hidden: B::Tensor,
    pub(crate) residual: B::Tensor,
    normed: B::Tensor,
    pub(crate) logits: B::Tensor,
}

impl<B: Backend> HeadBuffers<B> {
    /// Buffers for at most `rows` rows at a time.
    pub(crate) fn new(backend: &B, config: &ModelConfig, rows: usize) -> Result<Self> {
        Ok(Self {
            hidden: backend.tensor(rows, config.hidden_size)?,
            residual: backend.tensor(rows, config.hidden_size)?,
            normed: backend.tensor(rows, config.hidden_size)?,
            logits: backend.tensor(rows, config.vocab_size)?,
        })
    }
}
