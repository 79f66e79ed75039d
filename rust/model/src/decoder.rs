//! What the model asks of a family's decoder, and the parts that plain decoders are put together from.

mod buffers;
mod contract;
mod mlp;
mod multiply;
mod pre_norm;
mod sandwich;
mod self_attention;
mod transformer;

pub use self::buffers::{AttentionBuffers, Buffers, MlpBuffers};
pub use self::contract::DecoderLayer;
pub(crate) use self::contract::{Decoder, HEAD_ROWS};
pub use self::mlp::GatedMlp;
pub use self::pre_norm::PreNormLayer;
pub(crate) use self::sandwich::SandwichLayer;
pub use self::self_attention::SelfAttention;
pub(crate) use self::transformer::Stack;
pub use self::transformer::Transformer;
