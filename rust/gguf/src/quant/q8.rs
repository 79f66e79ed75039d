//! Q8_0: signed bytes and a scale per 32.

use super::{Block, LeF16, inverse};
use crate::GgmlType;

/// 32 elements: `d * qs[i]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// The scale.
    pub d: LeF16,
    /// The codes, -127 to 127 as written here; a file may hold -128.
    pub qs: [i8; 32],
}

const _: () = assert!(size_of::<BlockQ8_0>() == GgmlType::Q8_0.type_size() && align_of::<BlockQ8_0>() == 1);

impl Block for BlockQ8_0 {
    const DTYPE: GgmlType = GgmlType::Q8_0;

    fn dequantize(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (out, &q) in out.iter_mut().zip(&self.qs) {
            *out = q as f32 * d;
        }
    }

    fn quantize(x: &[f32]) -> Option<Self> {
        let d = x.iter().fold(0.0, |most: f32, v| most.max(v.abs())) / 127.0;
        let id = inverse(d);
        let mut qs = [0; 32];
        for (q, v) in qs.iter_mut().zip(x) {
            *q = (v * id).round() as i8; // halves away from zero, as roundf
        }
        Some(Self { d: LeF16::finite(d)?, qs })
    }
}
