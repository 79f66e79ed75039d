//! A 16-bit float as files store it.

use half::f16;

/// An IEEE half as its two little-endian bytes: it needs no alignment, so a block can be read wherever it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct LeF16(pub [u8; 2]);

impl LeF16 {
    /// The half nearest to `value`, ties to even; infinite from 65520 up.
    pub fn from_f32(value: f32) -> Self {
        Self(f16::from_f32(value).to_le_bytes())
    }

    /// The value, exactly.
    pub fn to_f32(self) -> f32 {
        f16::from_le_bytes(self.0).to_f32()
    }

    /// The half nearest to `value` like [`from_f32`](Self::from_f32), or `None` where that is not finite.
    pub(super) fn finite(value: f32) -> Option<Self> {
        let half = f16::from_f32(value);
        half.is_finite().then(|| Self(half.to_le_bytes()))
    }
}
