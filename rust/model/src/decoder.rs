//! What the model asks of a family's decoder, and the parts that plain decoders are put together from.

mod buffers;
pub(crate) mod contract;
pub(crate) mod mlp;
pub(crate) mod pre_norm;
pub(crate) mod self_attention;
pub(crate) mod transformer;

pub use self::buffers::{AttentionBuffers, Buffers, MlpBuffers};
pub use self::mlp::GatedMlp;
pub use self::pre_norm::PreNormLayer;
pub use self::self_attention::SelfAttention;
pub use self::transformer::Transformer;
