//! Readers of the types whose codes are kept: each takes a block, as the file stores it, apart.

use bytemuck::Pod;
use nanovllm_gguf::{
    BlockIQ4_NL, BlockIQ4_XS, BlockMXFP4, BlockQ2_K, BlockQ3_K, BlockQ4_0, BlockQ4_1, BlockQ4_K, BlockQ5_0, BlockQ5_1,
    BlockQ5_K, BlockQ6_K, BlockQ8_0, BlockQ8_1, BlockQ8_K, LeF16, PackedScales,
};

use crate::layout::StoredBlock;

/// A block as a file stores it.
pub(super) trait Read: Pod {
    /// Writes codes, scale bytes and halves to `to`, as far as the type has them.
    fn read(&self, to: &mut StoredBlock);
}

/// Takes `block`, the bytes of a `B`, apart.
pub(super) fn stored<B: Read>(block: &[u8], to: &mut StoredBlock) {
    bytemuck::from_bytes::<B>(block).read(to);
}

/// Codes in the nibbles of 16 bytes: the low nibbles are the first 16 codes.
fn nibbles(bytes: &[u8; 16], codes: &mut [u8]) {
    let (first, second) = codes[..32].split_at_mut(16);
    for ((first, second), byte) in first.iter_mut().zip(second).zip(bytes) {
        (*first, *second) = (byte & 15, byte >> 4);
    }
}

/// Adds the fifth bit of each of 32 codes: that of code `i` is bit `i`.
fn fifth_bits(bits: [u8; 4], codes: &mut [u8]) {
    let bits = u32::from_le_bytes(bits);
    for (i, code) in codes[..32].iter_mut().enumerate() {
        *code |= (bits >> i & 1) as u8 * 16;
    }
}

/// Codes in nibbles as the K types have them: of each 32 bytes, the low nibbles are 32 codes, the high ones the next 32.
fn long_nibbles(bytes: &[u8; 128], codes: &mut [u8; 256]) {
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        let (first, second) = codes.split_at_mut(32);
        for ((first, second), byte) in first.iter_mut().zip(second).zip(bytes) {
            (*first, *second) = (byte & 15, byte >> 4);
        }
    }
}

/// Adds bits `2 * j` of byte `32 * n + l`, shifted up, to code `128 * n + 32 * j + l`.
fn add_crumbs(bytes: &[u8; 64], up: u32, codes: &mut [u8; 256]) {
    for (i, codes) in codes.chunks_exact_mut(32).enumerate() {
        for (code, byte) in codes.iter_mut().zip(&bytes[i / 4 * 32..]) {
            *code |= (byte >> (i % 4 * 2) & 3) << up;
        }
    }
}

/// Adds bit `j` of byte `l`, shifted up, to code `32 * j + l`.
fn add_bits(bytes: &[u8; 32], up: u32, codes: &mut [u8; 256]) {
    for (j, codes) in codes.chunks_exact_mut(32).enumerate() {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code |= (byte >> j & 1) << up;
        }
    }
}

/// Makes signed codes unsigned by adding 128.
fn unsigned(signed: &[i8], codes: &mut [u8]) {
    for (code, q) in codes.iter_mut().zip(signed) {
        *code = q.cast_unsigned() ^ 0x80;
    }
}

/// Writes the scale and the minimum of each 32 elements side by side.
fn scales_and_minimums(packed: PackedScales, to: &mut [u8; 16]) {
    let (scales, minimums) = packed.unpack();
    for (to, (scale, minimum)) in to.chunks_exact_mut(2).zip(scales.into_iter().zip(minimums)) {
        to.copy_from_slice(&[scale, minimum]);
    }
}

impl Read for BlockQ8_0 {
    fn read(&self, to: &mut StoredBlock) {
        unsigned(&self.qs, &mut to.codes);
        to.halves[0] = self.d.0;
    }
}

impl Read for BlockQ8_1 {
    fn read(&self, to: &mut StoredBlock) {
        unsigned(&self.qs, &mut to.codes);
        to.halves[0] = self.d.0;
    }
}

impl Read for BlockQ8_K {
    fn read(&self, to: &mut StoredBlock) {
        unsigned(&self.qs, &mut to.codes);
        to.halves[0] = LeF16::from_f32(f32::from_le_bytes(self.d)).0;
    }
}

impl Read for BlockQ4_0 {
    fn read(&self, to: &mut StoredBlock) {
        nibbles(&self.qs, &mut to.codes);
        to.halves[0] = self.d.0;
    }
}

impl Read for BlockQ4_1 {
    fn read(&self, to: &mut StoredBlock) {
        nibbles(&self.qs, &mut to.codes);
        to.halves = [self.d.0, self.m.0];
    }
}

impl Read for BlockQ5_0 {
    fn read(&self, to: &mut StoredBlock) {
        nibbles(&self.qs, &mut to.codes);
        fifth_bits(self.qh, &mut to.codes);
        to.halves[0] = self.d.0;
    }
}

impl Read for BlockQ5_1 {
    fn read(&self, to: &mut StoredBlock) {
        nibbles(&self.qs, &mut to.codes);
        fifth_bits(self.qh, &mut to.codes);
        to.halves = [self.d.0, self.m.0];
    }
}

impl Read for BlockQ2_K {
    fn read(&self, to: &mut StoredBlock) {
        to.codes = [0; 256];
        add_crumbs(&self.qs, 0, &mut to.codes);
        to.scales = self.scales;
        to.halves = [self.d.0, self.dmin.0];
    }
}

impl Read for BlockQ3_K {
    fn read(&self, to: &mut StoredBlock) {
        to.codes = [0; 256];
        add_crumbs(&self.qs, 0, &mut to.codes);
        add_bits(&self.hmask, 2, &mut to.codes);
        to.scales = self.unpacked_scales().map(i8::cast_unsigned);
        to.halves[0] = self.d.0;
    }
}

impl Read for BlockQ4_K {
    fn read(&self, to: &mut StoredBlock) {
        long_nibbles(&self.qs, &mut to.codes);
        scales_and_minimums(self.scales, &mut to.scales);
        to.halves = [self.d.0, self.dmin.0];
    }
}

impl Read for BlockQ5_K {
    fn read(&self, to: &mut StoredBlock) {
        long_nibbles(&self.qs, &mut to.codes);
        add_bits(&self.qh, 4, &mut to.codes);
        scales_and_minimums(self.scales, &mut to.scales);
        to.halves = [self.d.0, self.dmin.0];
    }
}

impl Read for BlockQ6_K {
    fn read(&self, to: &mut StoredBlock) {
        for (ql, codes) in self.ql.chunks_exact(64).zip(to.codes.chunks_exact_mut(128)) {
            let (first, second) = codes.split_at_mut(64);
            for ((first, second), byte) in first.iter_mut().zip(second).zip(ql) {
                (*first, *second) = (byte & 15, byte >> 4);
            }
        }
        add_crumbs(&self.qh, 4, &mut to.codes);
        to.scales = self.scales.map(i8::cast_unsigned);
        to.halves[0] = self.d.0;
    }
}

impl Read for BlockIQ4_NL {
    fn read(&self, to: &mut StoredBlock) {
        nibbles(&self.qs, &mut to.codes);
        to.halves[0] = self.d.0;
    }
}

impl Read for BlockIQ4_XS {
    fn read(&self, to: &mut StoredBlock) {
        for (qs, codes) in self.qs.iter().zip(to.codes.chunks_exact_mut(32)) {
            nibbles(qs, codes);
        }
        to.scales[..8].copy_from_slice(&self.unpacked_scales().map(i8::cast_unsigned));
        to.halves[0] = self.d.0;
    }
}

impl Read for BlockMXFP4 {
    fn read(&self, to: &mut StoredBlock) {
        nibbles(&self.qs, &mut to.codes);
        to.scales[0] = self.e;
    }
}
