//! `out = x @ weight^T` for packed weights, over the team.
//!
//! First the rows are converted for the weight's format, each by one thread; after a barrier, threads claim runs of row groups
//! and one kernel computes a group for all rows. Every row goes through the same operations whatever the number of rows beside
//! it and whichever thread computes it.

use nanovllm_backend::{Error, Result};

use crate::activations::{ActivationBits, Activations, Rows};
use crate::claims::Shares;
use crate::isa::Isa;
use crate::kernels;
use crate::pack::{Format, Packed};
use crate::team::{Member, Team};
use crate::tensor::{SharedMut, Tensor};

/// Activation bytes to keep in a core's second-level cache while groups of weights go by.
const ROW_TILE_BYTES: usize = 256 << 10;

/// One group of outputs for a run of rows.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// The group's packed bytes.
    pub(crate) weight: *const u8,
    /// All rows of the matmul.
    pub(crate) rows: Rows,
    /// The first row to compute.
    pub(crate) first: usize,
    /// How many.
    pub(crate) count: usize,
    /// Where the outputs of row `first` go.
    pub(crate) out: *mut f32,
    /// Distance between output rows, in values.
    pub(crate) stride: usize,
    /// Outputs of this group that exist.
    pub(crate) lanes: usize,
}

/// # Safety
/// The machine has the kernel's instruction set; weight, rows and outputs of the tile are in bounds, the rows converted for the
/// kernel's format, and nothing else writes the outputs meanwhile.
pub(crate) type TileKernel = unsafe fn(&Tile);

/// # Safety
/// The machine has the kernel's instruction set, `row` is a row of the matmul, and nothing else touches its scratch.
pub(crate) type ConvertKernel = unsafe fn(rows: &Rows, row: usize);

/// The matmul of one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct MatmulKernels {
    /// Rows of a packed group.
    pub(crate) lanes: usize,
    /// Whether quantised weights take wide blocks of activations.
    pub(crate) wide: bool,
    /// f32 to i8 blocks, and to wide ones.
    pub(crate) quantize: [ConvertKernel; 2],
    /// f32 to bf16 pairs, where bf16 weights are multiplied in bf16; otherwise they take f32 rows.
    pub(crate) pair: Option<ConvertKernel>,
    pub(crate) f32: TileKernel,
    pub(crate) f16: TileKernel,
    pub(crate) bf16: TileKernel,
    /// For i8 blocks of activations, and for wide ones; so too the following.
    pub(crate) q8_0: [TileKernel; 2],
    pub(crate) q4_0: [TileKernel; 2],
    pub(crate) q4_1: [TileKernel; 2],
}

impl MatmulKernels {
    /// The kernels of `isa`, which the machine must have, for activations of `bits`.
    pub(crate) fn new(isa: Isa, bits: ActivationBits) -> Self {
        let kernels = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => kernels::avx512::matmul::kernels_bf16(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => kernels::avx512::matmul::kernels(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => kernels::avx2::matmul::kernels(),
            _ => kernels::scalar::matmul::kernels(),
        };
        Self { wide: bits == ActivationBits::Sixteen, ..kernels }
    }

    fn tile(&self, format: Format) -> TileKernel {
        let wide = usize::from(self.wide);
        match format {
            Format::F32 => self.f32,
            Format::F16 => self.f16,
            Format::Bf16 => self.bf16,
            Format::Q8_0 => self.q8_0[wide],
            Format::Q4_0 => self.q4_0[wide],
            Format::Q4_1 => self.q4_1[wide],
        }
    }

    /// The conversions the formats of `parts` need.
    fn conversions(&self, parts: &[Packed]) -> (Option<ConvertKernel>, Option<ConvertKernel>) {
        let quantized = parts.iter().any(|p| p.format.is_quantized());
        let quantize = quantized.then_some(self.quantize[usize::from(self.wide)]);
        let pair = self.pair.filter(|_| parts.iter().any(|p| p.format == Format::Bf16));
        (quantize, pair)
    }
}

/// A weight matrix: one or more packed parts stacked by rows, possibly of different types.
pub struct Weight {
    pub(crate) parts: Vec<Packed>,
}

impl Weight {
    /// Outputs.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|p| p.rows).sum()
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.parts.first().map_or(0, |p| p.cols)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Packed::bytes).sum()
    }

    /// Stacks `weights` in order.
    pub(crate) fn concat(weights: Vec<Self>) -> Result<Self> {
        let parts: Vec<Packed> = weights.into_iter().flat_map(|w| w.parts).collect();
        let Some(first) = parts.first() else {
            return Err(Error::Shape { what: "parts of a weight", expected: 1, got: 0 });
        };
        if let Some(other) = parts.iter().find(|p| p.cols != first.cols) {
            return Err(Error::Shape { what: "columns of a weight's parts", expected: first.cols, got: other.cols });
        }
        Ok(Self { parts })
    }

    /// Writes row `row` as f32.
    pub(crate) fn unpack_row(&self, mut row: usize, out: &mut [f32]) {
        for part in &self.parts {
            if row < part.rows {
                return part.unpack_row(row, out);
            }
            row -= part.rows;
        }
    }
}

/// `out = x @ weight^T (+ bias)`; `scratch` has room for `x`.
pub(crate) fn linear(
    team: &Team,
    kernels: &MatmulKernels,
    scratch: &mut Activations,
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
    out: &mut Tensor,
) {
    let (rows, cols) = (x.rows(), x.cols());
    assert_eq!(cols, weight.cols(), "inputs of a linear layer");
    assert_eq!(out.cols(), weight.rows(), "outputs of a linear layer");
    assert!(weight.parts.iter().all(|p| p.lanes == kernels.lanes), "a weight packed for this instruction set");
    out.set_rows(rows);
    let (quantize, pair) = kernels.conversions(&weight.parts);
    // Tiles of about the same size, of whole runs of the kernel's widest row block.
    let most = (ROW_TILE_BYTES / cols.max(1)).max(8);
    let row_tile = rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(8);
    let job = Job {
        weight,
        kernels,
        rows: scratch.rows(x),
        num_rows: rows,
        row_tile,
        groups: weight.parts.iter().map(Packed::groups).sum(),
        bias: bias.map(Tensor::as_slice),
        out: out.shared(),
    };
    let shares = Shares::new(rows.div_ceil(row_tile.max(1)) * job.groups, team.size());
    team.run(|me| {
        if quantize.is_some() || pair.is_some() {
            for row in me.share(rows) {
                for convert in [quantize, pair].into_iter().flatten() {
                    // SAFETY: the kernels were built for an instruction set of this machine, the scratch has room for all
                    // rows, and each row is in one member's share.
                    unsafe { convert(&job.rows, row) };
                }
            }
            me.barrier();
        }
        job.run(me, &shares);
    });
}

/// One matmul as its threads see it. Its pieces are numbered by tile of rows, then by group of outputs over all parts.
struct Job<'a> {
    weight: &'a Weight,
    kernels: &'a MatmulKernels,
    rows: Rows,
    num_rows: usize,
    /// Rows computed together while a group's weights are in cache.
    row_tile: usize,
    /// Groups of all parts.
    groups: usize,
    bias: Option<&'a [f32]>,
    out: SharedMut,
}

impl Job<'_> {
    /// Computes what this member can claim.
    fn run(&self, me: &Member<'_>, shares: &Shares) {
        // Small enough to even out the threads, large enough to stream.
        let chunk = (self.groups / (me.size() * 8)).clamp(1, 16);
        while let Some(range) = shares.take(me.rank, chunk) {
            for piece in range {
                let (tile, mut group) = (piece / self.groups, piece % self.groups);
                let mut column = 0;
                for part in &self.weight.parts {
                    if group < part.groups() {
                        self.compute(part, group, column + group * part.lanes, tile * self.row_tile);
                        break;
                    }
                    group -= part.groups();
                    column += part.rows;
                }
            }
        }
    }

    /// Computes a group of `part`, whose outputs begin at `column`, for the tile of rows from `first` on.
    fn compute(&self, part: &Packed, group: usize, column: usize, first: usize) {
        let kernel = self.kernels.tile(part.format);
        let count = self.row_tile.min(self.num_rows - first);
        let lanes = part.lanes.min(part.rows - group * part.lanes);
        let (weight, rows, stride) = (part.group(group).as_ptr(), self.rows, self.out.cols());
        // SAFETY: `first` is a row and `column + lanes` within the columns, as the shapes were compared in `linear`; the rows
        // are converted (barrier), the kernel is for an instruction set of this machine, and one member claims this tile.
        unsafe {
            kernel(&Tile { weight, rows, first, count, out: self.out.at(first, column), stride, lanes });
            if let Some(bias) = self.bias {
                for row in first..first + count {
                    let out = std::slice::from_raw_parts_mut(self.out.at(row, column), lanes);
                    out.iter_mut().zip(&bias[column..]).for_each(|(o, b)| *o += b);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nanovllm_backend::{DType, WeightPart};
    use proptest::prelude::*;

    use super::*;
    use crate::pack::BLOCK;
    use crate::pack::tests::{DTYPES, random, random_weight};

    /// A weight of random parts, with its values.
    fn weight(parts: &[(DType, usize)], cols: usize, seed: u64, lanes: usize) -> (Weight, Vec<f32>) {
        let team = Team::new(1).expect("one");
        let mut values = Vec::new();
        let mut packed = Vec::new();
        for (i, &(dtype, rows)) in parts.iter().enumerate() {
            let (data, x) = random_weight(dtype, rows, cols, seed ^ i as u64);
            packed.push(Packed::new(&WeightPart { dtype, rows, cols, data: &data }, lanes, &team).expect("packs"));
            values.extend(x);
        }
        (Weight { parts: packed }, values)
    }

    fn tensor(rows: usize, cols: usize, data: &[f32]) -> Tensor {
        let mut t = Tensor::zeroed(rows, cols).expect("small");
        t.as_mut_slice().copy_from_slice(data);
        t
    }

    fn run(isa: Isa, bits: ActivationBits, threads: usize, x: &Tensor, w: &Weight, bias: Option<&Tensor>) -> Vec<f32> {
        let team = Team::new(threads).expect("threads");
        let mut out = Tensor::zeroed(x.rows(), w.rows()).expect("small");
        out.as_mut_slice().fill(f32::NAN);
        let mut scratch = Activations::new().expect("empty");
        scratch.reserve(x.rows(), x.cols()).expect("small");
        linear(&team, &MatmulKernels::new(isa, bits), &mut scratch, x, w, bias, &mut out);
        out.as_slice().to_vec()
    }

    /// Normalised mean squared error of the worst row of outputs.
    fn nmse(x: &[f32], w: &[f32], bias: &[f32], cols: usize, got: &[f32]) -> f64 {
        let (mut error, mut norm) = (0.0, 1e-30);
        for (i, x) in x.chunks_exact(cols).enumerate() {
            for (j, w) in w.chunks_exact(cols).enumerate() {
                let exact: f64 = x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let exact = exact + f64::from(bias[j]);
                error += (exact - f64::from(got[i * bias.len() + j])).powi(2);
                norm += exact * exact;
            }
        }
        error / norm
    }

    const BITS: [ActivationBits; 2] = [ActivationBits::Eight, ActivationBits::Sixteen];

    fn threshold(dtype: DType, bits: ActivationBits) -> f64 {
        match (dtype, bits) {
            (DType::F32 | DType::F16, _) => 1e-9,
            (DType::Bf16, _) => 1e-5,
            (_, ActivationBits::Eight) => 5e-4,
            (_, ActivationBits::Sixteen) => 2e-8,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Every instruction set, type and shape against exact sums over the dequantised weights.
        #[test]
        fn agrees_with_the_reference(
            which in 0..DTYPES.len(), n in 1usize..70, blocks in 1usize..9, m in 1usize..20, seed: u64, threads in 1usize..4,
            high: bool,
        ) {
            let bits = BITS[usize::from(high)];
            let cols = blocks * BLOCK;
            for isa in Isa::available() {
                let lanes = MatmulKernels::new(isa, BITS[0]).lanes;
                let (w, values) = weight(&[(DTYPES[which], n)], cols, seed, lanes);
                let x = random(m * cols, !seed);
                let bias = random(n, seed ^ 7);
                let got = run(isa, bits, threads, &tensor(m, cols, &x), &w, Some(&tensor(1, n, &bias)));
                let error = nmse(&x, &values, &bias, cols, &got);
                prop_assert!(error < threshold(DTYPES[which], bits), "{isa} {} {bits:?}: {error:e}", DTYPES[which]);
            }
        }

        /// A row's result does not depend on the rows beside it nor on the threads, for weights of mixed types.
        #[test]
        fn rows_are_independent(
            m in 1usize..40, n in 1usize..40, blocks in 1usize..5, seed: u64, threads in 1usize..4, high: bool,
        ) {
            let cols = blocks * BLOCK;
            let x = random(m * cols, !seed);
            let bits = BITS[usize::from(high)];
            for isa in Isa::available() {
                let lanes = MatmulKernels::new(isa, BITS[0]).lanes;
                let parts: Vec<_> = DTYPES.iter().map(|&dtype| (dtype, n)).collect();
                let (w, _) = weight(&parts, cols, seed, lanes);
                let together = run(isa, bits, threads, &tensor(m, cols, &x), &w, None);
                for (x, expected) in x.chunks_exact(cols).zip(together.chunks_exact(w.rows())) {
                    let alone = run(isa, bits, 1, &tensor(1, cols, x), &w, None);
                    prop_assert!(alone.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa}");
                }
            }
        }
    }

    /// The extremes of every code, where 16-bit sums would saturate.
    #[test]
    fn extreme_codes_do_not_saturate() {
        let (rows, cols) = (17, 64);
        for (dtype, block) in [(DType::Q8_0, 34), (DType::Q4_0, 18), (DType::Q4_1, 20)] {
            for code in [0x80u8, 0x7f, 0xff, 0x00, 0x81] {
                let mut data = vec![code; rows * cols / 32 * block];
                for b in data.chunks_exact_mut(block) {
                    b[..2].copy_from_slice(&half::f16::from_f32(0.01).to_le_bytes());
                    if dtype == DType::Q4_1 {
                        b[2..4].copy_from_slice(&half::f16::from_f32(-0.5).to_le_bytes());
                    }
                }
                let mut values = vec![0.0; rows * cols];
                nanovllm_gguf::dequantize(dtype, &data, &mut values).expect("supported");
                for (sign, bits) in [(1.0, BITS[0]), (-1.0, BITS[0]), (1.0, BITS[1]), (-1.0, BITS[1])] {
                    let x: Vec<f32> = vec![sign; cols];
                    for isa in Isa::available() {
                        let team = Team::new(1).expect("one");
                        let lanes = MatmulKernels::new(isa, BITS[0]).lanes;
                        let part = WeightPart { dtype, rows, cols, data: &data };
                        let w = Weight { parts: vec![Packed::new(&part, lanes, &team).expect("packs")] };
                        let got = run(isa, bits, 1, &tensor(1, cols, &x), &w, None);
                        let error = nmse(&x, &values, &[0.0; 17], cols, &got);
                        assert!(error < 1e-9, "{isa} {dtype} {code:#x}: {error:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn odd_columns_of_dense_types() {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            for isa in Isa::available() {
                let (w, values) = weight(&[(dtype, 19)], 37, 5, MatmulKernels::new(isa, BITS[1]).lanes);
                let x = random(3 * 37, 1);
                let got = run(isa, ActivationBits::Sixteen, 2, &tensor(3, 37, &x), &w, None);
                let error = nmse(&x, &values, &[0.0; 19], 37, &got);
                assert!(error < threshold(dtype, ActivationBits::Sixteen), "{isa} {dtype}: {error:e}");
            }
        }
    }
}
