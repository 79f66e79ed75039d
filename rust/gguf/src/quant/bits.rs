//! Layouts of 4-bit and 2-bit codes that several formats share.

/// Writes `value` of each code of 32 elements to `out`, in Q4_0's order: byte `i` holds the code of element `i` in its
/// low nibble and that of element `i + 16` in its high one.
pub(super) fn unpack_nibbles(qs: &[u8; 16], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(qs) {
        *low = value(byte & 0x0f);
        *high = value(byte >> 4);
    }
}

/// Packs the codes of 32 elements, each 0 to 15, in Q4_0's order.
pub(super) fn pack_nibbles(code: impl Fn(usize) -> u8) -> [u8; 16] {
    std::array::from_fn(|i| code(i) | code(i + 16) << 4)
}

/// The two-bit fields of group `group` of 16 elements of a super-block: element `128 * n + 32 * j + l` lies at bit
/// `2 * j` of byte `32 * n + l`.
pub(super) fn crumbs(fields: &[u8; 64], group: usize) -> impl Iterator<Item = u8> {
    let shift = group % 8 / 2 * 2;
    fields[group / 8 * 32 + group % 2 * 16..][..16].iter().map(move |byte| byte >> shift & 3)
}

/// Packs the two-bit fields of all 256 elements of a super-block as [`crumbs`] finds them.
pub(super) fn pack_crumbs(fields: &[u8; 256]) -> [u8; 64] {
    std::array::from_fn(|byte| {
        let at = byte / 32 * 128 + byte % 32;
        fields[at] | fields[at + 32] << 2 | fields[at + 64] << 4 | fields[at + 96] << 6
    })
}
