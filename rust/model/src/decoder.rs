//! What the model asks of a family's decoder, and the parts that plain decoders are put together from.

mod buffers;
mod contract;
mod expert_branch;
mod mixture;
mod mlp;
mod multiply;
mod per_layer;
mod pre_norm;
mod sandwich;
mod self_attention;
mod sparse_mlp;
mod transformer;

pub use self::buffers::{AttentionBuffers, Buffers, ExpertSizes, LayerSizes, MlpBuffers, MlpSizes};
pub use self::contract::DecoderLayer;
pub(crate) use self::contract::{Decoder, HEAD_ROWS};
pub(crate) use self::expert_branch::ExpertBranch;
pub use self::mlp::{FeedForward, GatedMlp};
pub(crate) use self::per_layer::{PerLayerGate, PerLayerInputs};
pub use self::pre_norm::PreNormLayer;
pub(crate) use self::sandwich::SandwichLayer;
pub use self::self_attention::{AttentionNorms, SelfAttention};
pub(crate) use self::sparse_mlp::{Mlp, SparseMlp};
pub(crate) use self::transformer::Stack;
pub use self::transformer::Transformer;
