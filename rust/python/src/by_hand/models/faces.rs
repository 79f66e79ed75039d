//! Qwen3's modules as Python holds them: the attributes that a forward reads, their sizes checked against each other, and
//! the Rust modules they make on a device.

use nanovllm_backend::{Activation, Backend, Error, HeadLayout};
use nanovllm_model::ParameterError;
use nanovllm_model::layers::attention::Attention;
use nanovllm_model::layers::embed_head::VocabParallelEmbedding;
use nanovllm_model::layers::layernorm::RmsNorm;
use nanovllm_model::layers::rotary_embedding;
use nanovllm_model::models::qwen3::{AttentionNorms, Qwen3Attention, Qwen3DecoderLayer, Qwen3Mlp, Qwen3Model};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::by_hand::layers::attention::check_heads;
use crate::by_hand::layers::linear::LinearFace;
use crate::by_hand::layers::parameter::Parameter;
use crate::by_hand::layers::rotary_embedding::RotaryEmbedding;
use crate::by_hand::models::forward_pass::CacheFace;

type OnDevice<T> = Result<T, ParameterError>;

/// What is read of an `RMSNorm`.
#[derive(FromPyObject)]
pub(super) struct NormFace {
    weight: Py<Parameter>,
    eps: f64,
}

impl NormFace {
    fn require(&self, name: &str, width: usize) -> PyResult<()> {
        let got = self.weight.get().size();
        if got != (width, 1) {
            return error(format!("{name} must have a weight [{width}], got {got:?}"));
        }
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return error(format!("eps of {name} must be finite and not negative, got {}", self.eps));
        }
        Ok(())
    }

    fn bind<B: Backend>(&self, backend: &B) -> OnDevice<RmsNorm<B>> {
        Ok(RmsNorm::new(self.weight.get().uploaded(backend)?, self.eps as f32))
    }
}

/// What is read of a `RotaryEmbedding`.
#[derive(FromPyObject)]
struct RotaryFace {
    #[pyo3(attribute("_core"))]
    core: Py<RotaryEmbedding>,
}

/// What is read of a `Qwen3Attention`.
#[derive(FromPyObject)]
pub(super) struct AttentionFace {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    qkv_proj: LinearFace,
    o_proj: LinearFace,
    q_norm: Option<NormFace>,
    k_norm: Option<NormFace>,
    rotary_emb: RotaryFace,
    pub(super) attn: CacheFace,
}

impl AttentionFace {
    pub(super) fn heads(&self) -> HeadLayout {
        HeadLayout { num_heads: self.num_heads, num_kv_heads: self.num_kv_heads, head_dim: self.head_dim }
    }

    /// Number of positions that there are cosines and sines for.
    pub(super) fn max_position(&self) -> usize {
        self.rotary_emb.core.get().max_position()
    }

    /// Refuses parts that do not fit each other or a residual stream of this width.
    pub(super) fn check(&self, hidden_size: usize) -> PyResult<()> {
        let heads = self.heads();
        check_heads(heads)?;
        self.qkv_proj.require("qkv_proj", hidden_size, heads.qkv_size())?;
        self.o_proj.require("o_proj", heads.q_size(), hidden_size)?;
        let rotary = self.rotary_emb.core.get().head_size();
        if rotary != self.head_dim {
            return error(format!("rotary_emb must be of heads of {}, got {rotary}", self.head_dim));
        }
        match (&self.q_norm, &self.k_norm) {
            (None, None) => Ok(()),
            (Some(q), Some(k)) if q.eps == k.eps => {
                q.require("q_norm", self.head_dim)?;
                k.require("k_norm", self.head_dim)
            }
            _ => error("q_norm and k_norm must both be there, with the same eps, or neither".to_owned()),
        }
    }

    /// The table that rotates queries and keys.
    pub(super) fn rotary<B: Backend>(&self) -> OnDevice<&rotary_embedding::RotaryEmbedding<B>> {
        let elsewhere = || Error::Option("rotary_emb is on another device than the module".to_owned());
        Ok(self.rotary_emb.core.get().on().ok_or_else(elsewhere)?)
    }

    pub(super) fn bind<B: Backend>(&self, backend: &B, layer: usize) -> OnDevice<Qwen3Attention<B>> {
        let norm = |norm: &Option<NormFace>| norm.as_ref().map(|norm| norm.bind(backend)).transpose();
        let norms = AttentionNorms { q: norm(&self.q_norm)?, k: norm(&self.k_norm)?, v_eps: None };
        Ok(Qwen3Attention {
            qkv_proj: self.qkv_proj.bind(backend)?,
            o_proj: self.o_proj.bind(backend)?,
            norms,
            sinks: None,
            attn: Attention::plain(self.heads(), layer),
        })
    }
}

/// What is read of a `Qwen3MLP`.
#[derive(FromPyObject)]
pub(super) struct MlpFace {
    gate_up_proj: LinearFace,
    down_proj: LinearFace,
}

impl MlpFace {
    pub(super) fn intermediate_size(&self) -> usize {
        self.gate_up_proj.size().0 / 2
    }

    /// Refuses parts that do not fit each other or a residual stream of this width.
    pub(super) fn check(&self, hidden_size: usize) -> PyResult<()> {
        let intermediate = self.intermediate_size();
        self.gate_up_proj.require("gate_up_proj", hidden_size, 2 * intermediate)?;
        self.down_proj.require("down_proj", intermediate, hidden_size)
    }

    pub(super) fn bind<B: Backend>(&self, backend: &B) -> OnDevice<Qwen3Mlp<B>> {
        Ok(Qwen3Mlp {
            gate_up_proj: self.gate_up_proj.bind(backend)?,
            down_proj: self.down_proj.bind(backend)?,
            activation: Activation::Silu,
            intermediate_size: self.intermediate_size(),
        })
    }
}

/// What is read of a `Qwen3DecoderLayer`.
#[derive(FromPyObject)]
pub(super) struct LayerFace {
    pub(super) self_attn: AttentionFace,
    pub(super) mlp: MlpFace,
    input_layernorm: NormFace,
    post_attention_layernorm: NormFace,
}

impl LayerFace {
    /// Refuses parts that do not fit each other or a residual stream of this width.
    pub(super) fn check(&self, hidden_size: usize) -> PyResult<()> {
        self.input_layernorm.require("input_layernorm", hidden_size)?;
        self.self_attn.check(hidden_size)?;
        self.post_attention_layernorm.require("post_attention_layernorm", hidden_size)?;
        self.mlp.check(hidden_size)
    }

    pub(super) fn bind<B: Backend>(&self, backend: &B, layer: usize) -> OnDevice<Qwen3DecoderLayer<B>> {
        Ok(Qwen3DecoderLayer {
            self_attn: self.self_attn.bind(backend, layer)?,
            mlp: self.mlp.bind(backend)?,
            input_layernorm: self.input_layernorm.bind(backend)?,
            post_attention_layernorm: self.post_attention_layernorm.bind(backend)?,
            residual_multiplier: 1.0,
        })
    }
}

/// What is read of a `VocabParallelEmbedding`, which has the whole vocabulary.
#[derive(FromPyObject)]
struct EmbeddingFace {
    weight: Py<Parameter>,
}

/// What is read of a `Qwen3Model`.
#[derive(FromPyObject)]
pub(super) struct ModelFace {
    embed_tokens: EmbeddingFace,
    pub(super) layers: Vec<LayerFace>,
    norm: NormFace,
}

impl ModelFace {
    /// The embedding, `[tokens, hidden]`.
    pub(super) fn embedding(&self) -> &Parameter {
        self.embed_tokens.weight.get()
    }

    /// The first layer, whose heads and rotary table all must share.
    pub(super) fn first(&self) -> PyResult<&LayerFace> {
        self.layers.first().ok_or_else(|| PyValueError::new_err("the model has no layers"))
    }

    /// Refuses parts that do not fit each other.
    pub(super) fn check(&self) -> PyResult<()> {
        let hidden_size = self.embedding().size().1;
        let first = self.first()?;
        for layer in &self.layers {
            layer.check(hidden_size)?;
            let (own, firsts) = (&layer.self_attn, &first.self_attn);
            if own.heads() != firsts.heads() || !own.rotary_emb.core.is(&firsts.rotary_emb.core) {
                return error("all layers must have the same heads and share one rotary_emb".to_owned());
            }
            if layer.mlp.intermediate_size() != first.mlp.intermediate_size() {
                return error("the MLPs of all layers must be of the same width".to_owned());
            }
        }
        self.norm.require("norm", hidden_size)
    }

    pub(super) fn bind<B: Backend>(&self, backend: &B) -> OnDevice<Qwen3Model<B>> {
        let layers = self.layers.iter().enumerate().map(|(i, layer)| layer.bind(backend, i));
        Ok(Qwen3Model {
            embed_tokens: VocabParallelEmbedding::new(self.embedding().packed(backend)?),
            embedding_multiplier: 1.0,
            layers: layers.collect::<OnDevice<_>>()?,
            norm: self.norm.bind(backend)?,
        })
    }
}

fn error<T>(text: String) -> PyResult<T> {
    Err(PyValueError::new_err(text))
}
