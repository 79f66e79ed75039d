//! `out = x @ weight^T` for packed weights, over the team.
//!
//! First each row of activations is converted for the formats of the weight, by one thread. After a barrier the threads claim
//! tiles: a group of outputs for some of the rows, computed by one call of a kernel. A row goes through the same operations
//! whatever the number of rows beside it and whichever thread computes it.

use std::ops::Range;

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

    /// The conversions of rows that the formats of `weights` need.
    pub(crate) fn conversions<'w>(&self, weights: impl Iterator<Item = &'w Weight>) -> [Option<ConvertKernel>; 2] {
        let [mut quantize, mut pair] = [None, None];
        for part in weights.flat_map(|weight| &weight.parts) {
            match part.format {
                Format::Quantized(_) => quantize = Some(self.kernels.quantize[self.wide()]),
                Format::Bf16 => pair = self.kernels.pair,
                Format::F32 | Format::F16 => {}
            }
        }
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

    /// Groups of outputs, over all parts.
    pub(crate) fn groups(&self) -> usize {
        self.parts.iter().map(Packed::groups).sum()
    }

    /// Whether it was packed for these kernels.
    pub(crate) fn is_for(&self, kernels: &MatmulKernels) -> bool {
        self.parts.iter().all(|part| part.lanes == kernels.lanes)
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
    assert!(weight.is_for(matmul.kernels), "a weight packed for this instruction set");
    out.set_rows(rows);
    let conversions = matmul.conversions(std::iter::once(weight));
    let row_tile = row_tile(rows, cols);
    let call = Call {
        weight,
        product: Product { matmul, rows: scratch.rows(x), out: out.shared() },
        num_rows: rows,
        row_tile,
        groups: weight.groups(),
        bias: bias.map(Tensor::as_slice),
    };
    let shares = Shares::new(rows.div_ceil(row_tile.max(1)) * call.groups, team.size());
    team.run(|me| {
        if conversions.iter().any(Option::is_some) {
            for row in me.share(rows) {
                for convert in conversions.into_iter().flatten() {
                    // SAFETY: the scratch has room for all rows, and each row is in one member's share.
                    unsafe { convert(&call.product.rows, row) };
                }
            }
            me.barrier();
        }
        call.run(me, &shares);
    });
}

/// How many of `rows` rows of `cols` inputs make a tile. Tiles have about the same number of rows, a multiple of the most that a
/// kernel computes together.
pub(crate) fn row_tile(rows: usize, cols: usize) -> usize {
    let most = (ROW_TILE_BYTES / cols.max(1)).max(8);
    rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(8)
}

/// How many groups a thread claims at once of `groups`: few enough that threads finish together, enough to read memory in one
/// stream.
pub(crate) fn claim(groups: usize, team: usize) -> usize {
    (groups / (team * 8)).clamp(1, 16)
}

/// One matmul as its threads see it. Its tiles are numbered by their rows first, then by group of outputs over all parts.
struct Call<'a> {
    weight: &'a Weight,
    product: Product<'a>,
    num_rows: usize,
    /// Rows of a tile.
    row_tile: usize,
    /// Groups of outputs, over all parts.
    groups: usize,
    bias: Option<&'a [f32]>,
}

impl Call<'_> {
    /// Computes what this member can claim.
    fn run(&self, me: &Member<'_>, shares: &Shares) {
        let most = claim(self.groups, me.size());
        while let Some(range) = shares.take(me.rank, most) {
            for tile in range {
                let first = tile / self.groups * self.row_tile;
                let rows = first..(first + self.row_tile).min(self.num_rows);
                // SAFETY: the rows were converted before the barrier, the shapes were compared in `linear`, and one member claims
                // this tile.
                let columns = unsafe { self.product.compute(self.weight, tile % self.groups, rows.clone()) };
                if let Some(bias) = self.bias {
                    for row in rows {
                        // SAFETY: as above.
                        let out = unsafe {
                            std::slice::from_raw_parts_mut(self.product.out.at(row, columns.start), columns.len())
                        };
                        out.iter_mut().zip(&bias[columns.clone()]).for_each(|(o, b)| *o += b);
                    }
                }
            }
        }
    }
}

/// Products of rows with weights, written to a matrix of as many rows.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) matmul: Matmul<'a>,
    pub(crate) rows: Rows,
    pub(crate) out: SharedMut,
}

impl Product<'_> {
    /// Computes group `group` of a weight's outputs for `rows`, and returns the columns that it wrote.
    ///
    /// # Safety
    /// The weight has such a group, its inputs are the columns of the rows and its outputs at most those of the matrix; the rows
    /// exist and were converted for it; nobody else touches these columns of them meanwhile.
    pub(crate) unsafe fn compute(&self, weight: &Weight, mut group: usize, rows: Range<usize>) -> Range<usize> {
        let mut column = 0;
        for part in &weight.parts {
            if group < part.groups() {
                column += group * part.lanes;
                let lanes = part.lanes.min(part.rows - group * part.lanes);
                // SAFETY: by this function's contract.
                part.with_group(group, |weight| unsafe {
                    self.matmul.tile(part.format)(&Tile {
                        weight: weight.as_ptr(),
                        table: part.format.table(),
                        rows: self.rows,
                        first: rows.start,
                        count: rows.len(),
                        out: self.out.at(rows.start, column),
                        stride: self.out.cols(),
                        lanes,
                    });
                });
                return column..column + lanes;
            }
            group -= part.groups();
            column += part.rows;
        }
        column..column
    }
}

#[cfg(test)]
mod tests;
