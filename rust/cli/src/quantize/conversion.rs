//! What becomes of a tensor.

use nanovllm_gguf::GgmlType;

use super::source::SourceTensor;

/// A tensor and the type it is to have; where it has that type already, its bytes are copied.
pub(super) struct Conversion<'a> {
    pub(super) tensor: &'a SourceTensor,
    /// What the mix has for it, which may not fit its rows.
    pub(super) wanted: GgmlType,
    pub(super) to: GgmlType,
    /// Whether it stays in the blocks that its model was trained in, whatever the mix.
    pub(super) is_kept: bool,
}
