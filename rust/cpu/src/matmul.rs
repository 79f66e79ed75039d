//! `out = x @ weight^T` for packed weights, over the team.
//!
//! First each row of activations is converted for the formats of the weight, by one thread. After a barrier the threads claim
//! tiles: a group of outputs for some of the rows, computed by one call of a kernel. A row goes through the same operations
//! whatever the number of rows beside it and whichever thread computes it.

use nanovllm_backend::{Error, Result};

use crate::activations::{ActivationBits, Activations};
use crate::claims::Shares;
use crate::format::Format;
use crate::kernels::codes::Rows;
use crate::kernels::table::MatmulKernels;
use crate::kernels::tile::{ConvertKernel, Tile, TileKernel};
use crate::pack::Packed;
use crate::team::{Member, Team};
use crate::tensor::{SharedMut, Tensor};

/// Bytes of activations that stay in a core's second-level cache while groups of weights go by.
const ROW_TILE_BYTES: usize = 256 << 10;

/// The kernels that a device multiplies with.
#[derive(Clone, Copy)]
pub(crate) struct Matmul<'a> {
    pub(crate) kernels: &'a MatmulKernels,
    /// How many bits of the activations quantised weights are multiplied with.
    pub(crate) bits: ActivationBits,
}

impl Matmul<'_> {
    /// Which of two kernels: 1 where quantised weights take wide blocks of activations.
    fn wide(&self) -> usize {
        usize::from(self.bits == ActivationBits::Sixteen)
    }

    /// The kernel of weights of this format.
    fn tile(&self, format: Format) -> TileKernel {
        let kernels = self.kernels;
        match format {
            Format::F32 => kernels.f32,
            Format::F16 => kernels.f16,
            Format::Bf16 => kernels.bf16,
            Format::Quantized(coding) => kernels.quantized[coding.layout as usize][self.wide()],
        }
    }

    /// The conversions of rows that the formats of `parts` need.
    fn conversions(&self, parts: &[Packed]) -> [Option<ConvertKernel>; 2] {
        let quantized = parts.iter().any(|p| matches!(p.format, Format::Quantized(_)));
        let quantize = quantized.then_some(self.kernels.quantize[self.wide()]);
        let pair = self.kernels.pair.filter(|_| parts.iter().any(|p| matches!(p.format, Format::Bf16)));
        [quantize, pair]
    }
}

/// A weight matrix: one or more packed parts stacked by rows, possibly of different types.
pub struct Weight {
    pub(crate) parts: Vec<Packed>,
}

impl Weight {
    /// How many outputs it has.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|p| p.rows).sum()
    }

    /// How many inputs it has.
    pub fn cols(&self) -> usize {
        self.parts.first().map_or(0, |p| p.cols)
    }

    /// Bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Packed::bytes).sum()
    }

    /// Stacks `weights` in order: the outputs of the first come first.
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

    /// Writes the weights of output `row` to `out` as f32.
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
    matmul: Matmul<'_>,
    scratch: &mut Activations,
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
    out: &mut Tensor,
) {
    let (rows, cols) = (x.rows(), x.cols());
    assert_eq!(cols, weight.cols(), "inputs of a linear layer");
    assert_eq!(out.cols(), weight.rows(), "outputs of a linear layer");
    assert!(weight.parts.iter().all(|p| p.lanes == matmul.kernels.lanes), "a weight packed for this instruction set");
    out.set_rows(rows);
    let conversions = matmul.conversions(&weight.parts);
    // Tiles have about the same number of rows, a multiple of the most that a kernel computes together.
    let most = (ROW_TILE_BYTES / cols.max(1)).max(8);
    let row_tile = rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(8);
    let call = Call {
        weight,
        matmul,
        rows: scratch.rows(x),
        num_rows: rows,
        row_tile,
        groups: weight.parts.iter().map(Packed::groups).sum(),
        bias: bias.map(Tensor::as_slice),
        out: out.shared(),
    };
    let shares = Shares::new(rows.div_ceil(row_tile.max(1)) * call.groups, team.size());
    team.run(|me| {
        if conversions.iter().any(Option::is_some) {
            for row in me.share(rows) {
                for convert in conversions.into_iter().flatten() {
                    // SAFETY: the scratch has room for all rows, and each row is in one member's share.
                    unsafe { convert(&call.rows, row) };
                }
            }
            me.barrier();
        }
        call.run(me, &shares);
    });
}

/// One matmul as its threads see it. Its tiles are numbered by their rows first, then by group of outputs over all parts.
struct Call<'a> {
    weight: &'a Weight,
    matmul: Matmul<'a>,
    rows: Rows,
    num_rows: usize,
    /// Rows of a tile.
    row_tile: usize,
    /// Groups of outputs, over all parts.
    groups: usize,
    bias: Option<&'a [f32]>,
    out: SharedMut,
}

impl Call<'_> {
    /// Computes what this member can claim.
    fn run(&self, me: &Member<'_>, shares: &Shares) {
        // Small enough that threads finish together, large enough to read memory in one stream.
        let most = (self.groups / (me.size() * 8)).clamp(1, 16);
        while let Some(range) = shares.take(me.rank, most) {
            for tile in range {
                let (rows, mut group) = (tile / self.groups, tile % self.groups);
                let mut column = 0;
                for part in &self.weight.parts {
                    if group < part.groups() {
                        self.compute(part, group, column + group * part.lanes, rows * self.row_tile);
                        break;
                    }
                    group -= part.groups();
                    column += part.rows;
                }
            }
        }
    }

    /// Computes one tile: a group of `part`, whose outputs begin at `column`, for the rows from `first` on.
    fn compute(&self, part: &Packed, group: usize, column: usize, first: usize) {
        let kernel = self.matmul.tile(part.format);
        let count = self.row_tile.min(self.num_rows - first);
        let lanes = part.lanes.min(part.rows - group * part.lanes);
        let (weight, rows, stride) = (part.group(group).as_ptr(), self.rows, self.out.cols());
        // SAFETY: `first` is a row and `column + lanes` within the columns, as the shapes were compared in `linear`; the rows
        // were converted before the barrier, and one member claims this tile.
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
