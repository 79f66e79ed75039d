//! What a block format implements, and what the table of types knows of it.

/// A block format: a struct without padding or alignment that holds a fixed number of consecutive elements of a row.
pub(crate) trait Block: bytemuck::Pod {
    /// The number of elements.
    const ELEMENTS: usize;

    /// Writes the elements to `out`, which holds [`ELEMENTS`](Self::ELEMENTS).
    fn dequantize(&self, out: &mut [f32]);
}

/// A block format that can also be written.
pub(crate) trait Encode: Block {
    /// The block nearest to `x`, which holds [`ELEMENTS`](Block::ELEMENTS) finite values; `None` if a scale overflows.
    fn quantize(x: &[f32]) -> Option<Self>;
}

/// How the elements of a type are stored, read and written. Both functions are given whole blocks.
pub(crate) struct Codec {
    /// Elements in a block.
    pub(crate) block_size: usize,
    /// Bytes in a block.
    pub(crate) type_size: usize,
    /// `None` would be a type that files may name before its decoder is written; there is none now.
    pub(crate) decode: Option<DecodeFn>,
    /// `None` for a type that is only read.
    pub(crate) encode: Option<EncodeFn>,
}

/// Decodes blocks into elements.
pub(crate) type DecodeFn = fn(&[u8], &mut [f32]);

/// Appends elements as blocks; the error is the index of the first block that cannot hold its elements.
pub(crate) type EncodeFn = fn(&[f32], &mut Vec<u8>) -> Result<(), usize>;

impl Codec {
    /// A block format that is only read.
    pub(crate) const fn read_only<B: Block>() -> Self {
        const { assert!(align_of::<B>() == 1, "a block can be read wherever it lies") }
        Self { block_size: B::ELEMENTS, type_size: size_of::<B>(), decode: Some(from_blocks::<B>), encode: None }
    }

    /// A block format that is read and written.
    pub(crate) const fn read_write<B: Encode>() -> Self {
        Self { encode: Some(to_blocks::<B>), ..Self::read_only::<B>() }
    }
}

fn from_blocks<B: Block>(data: &[u8], out: &mut [f32]) {
    let blocks = data.chunks_exact(size_of::<B>()).map(bytemuck::from_bytes::<B>);
    for (block, out) in blocks.zip(out.chunks_exact_mut(B::ELEMENTS)) {
        block.dequantize(out);
    }
}

fn to_blocks<B: Encode>(x: &[f32], out: &mut Vec<u8>) -> Result<(), usize> {
    for (block, x) in x.chunks_exact(B::ELEMENTS).enumerate() {
        let finite = x.iter().all(|v| v.is_finite());
        let encoded = finite.then(|| B::quantize(x)).flatten().ok_or(block)?;
        out.extend_from_slice(bytemuck::bytes_of(&encoded));
    }
    Ok(())
}
