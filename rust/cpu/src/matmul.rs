//! `out = x @ weight^T` for packed weights, over the team.
//!
//! First the rows are converted for the weight's format, each by one thread; after a barrier, threads claim runs of row groups
//! and one kernel computes a group for all rows. Every row goes through the same operations whatever the number of rows beside
//! it and whichever thread computes it.

use nanovllm_backend::{Error, Result};

use crate::activations::{ActivationBits, Activations, Rows};
use crate::claims::Shares;
use crate::format::Format;
use crate::isa::Isa;
use crate::kernels;
use crate::layout::Layout;
use crate::pack::Packed;
use crate::team::{Member, Team};
use crate::tensor::{SharedMut, Tensor};

/// Activation bytes to keep in a core's second-level cache while groups of weights go by.
const ROW_TILE_BYTES: usize = 256 << 10;

/// One group of outputs for a run of rows.
pub(crate) struct Tile {
    /// The group's packed bytes.
    pub(crate) weight: *const u8,
    /// What a table's codes stand for, and what its scales are multiplied with.
    pub(crate) table: (&'static [i8; 16], f32),
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
    /// For each layout, for i8 blocks of activations and for wide ones.
    pub(crate) quantized: [[TileKernel; 2]; Layout::COUNT],
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
            Isa::AvxVnni => kernels::avx2::matmul::kernels_vnni(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => kernels::avx2::matmul::kernels(),
            _ => kernels::scalar::matmul::kernels(),
        };
        Self { wide: bits == ActivationBits::Sixteen, ..kernels }
    }

    fn tile(&self, format: Format) -> TileKernel {
        match format {
            Format::F32 => self.f32,
            Format::F16 => self.f16,
            Format::Bf16 => self.bf16,
            Format::Quantized(coding) => self.quantized[coding.layout as usize][usize::from(self.wide)],
        }
    }

    /// The conversions the formats of `parts` need.
    fn conversions(&self, parts: &[Packed]) -> (Option<ConvertKernel>, Option<ConvertKernel>) {
        let quantized = parts.iter().any(|p| matches!(p.format, Format::Quantized(_)));
        let quantize = quantized.then_some(self.quantize[usize::from(self.wide)]);
        let pair = self.pair.filter(|_| parts.iter().any(|p| matches!(p.format, Format::Bf16)));
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
            kernel(&Tile {
                weight,
                table: part.format.table(),
                rows,
                first,
                count,
                out: self.out.at(first, column),
                stride,
                lanes,
            });
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
mod tests;
