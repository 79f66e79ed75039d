//! Mixtures of experts, over the team.
//!
//! The rows are put in the order of their experts, a copy for each expert that a row goes through, so that the weights of each
//! expert are read once for each tile of its rows, which are as many as stay in a core's cache, and those of an expert without rows not at all. Threads claim tiles over all
//! experts together, so they finish together however the rows are spread. A row goes through the same operations whatever the
//! rows beside it, and its experts' outputs are added in the order in which it chose them.

use std::ops::Range;

use nanovllm_backend::{ExpertRoom, Experts, Route, Routing};

use crate::activations::Activations;
use crate::claims::Shares;
use crate::kernels::codes::Rows;
use crate::kernels::table::RowKernels;
use crate::kernels::tile::ConvertKernel;
use crate::matmul::{Matmul, Product, Weight, claim, row_tile};
use crate::team::{Member, Team};
use crate::tensor::{SharedMut, Tensor};

/// Which rows go through which expert, for one mixture at a time. It grows and never shrinks.
#[derive(Default)]
pub(crate) struct ExpertOrder {
    /// The experts of each row, in the order in which it chose them, `[rows, experts_per_row]`.
    routes: Vec<Route>,
    /// Where the copy of its row lies that goes through a route's expert.
    places: Vec<u32>,
    /// The row that is copied to each place.
    sources: Vec<u32>,
    /// Where the places of each expert begin, and where those of the last end.
    starts: Vec<u32>,
    /// The experts that rows go through.
    chosen: Vec<u32>,
}

impl ExpertOrder {
    /// Lets the rows of `logits` choose, and sorts their copies by expert, those of one expert by row.
    fn sort(&mut self, logits: &Tensor, routing: &Routing<'_, Tensor>) {
        let (rows, experts, each) = (logits.rows(), logits.cols(), routing.experts_per_row);
        self.routes.resize(rows * each, Route { expert: 0, weight: 0.0 });
        let factors = routing.factors.map(Tensor::as_slice);
        for (i, routes) in self.routes.chunks_exact_mut(each).enumerate() {
            routing.choose(logits.row(i), factors, routes);
        }
        self.starts.clear();
        self.starts.resize(experts + 1, 0);
        for route in &self.routes {
            self.starts[route.expert as usize + 1] += 1;
        }
        for expert in 0..experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        self.places.resize(rows * each, 0);
        self.sources.resize(rows * each, 0);
        // `starts` counts up to where the next expert's begin, and is then set back.
        for (i, (route, place)) in self.routes.iter().zip(&mut self.places).enumerate() {
            let start = &mut self.starts[route.expert as usize];
            *place = *start;
            self.sources[*start as usize] = (i / each) as u32;
            *start += 1;
        }
        self.starts.rotate_right(1);
        self.starts[0] = 0;
        self.chosen.clear();
        self.chosen.extend(
            (0..experts as u32).filter(|&expert| self.starts[expert as usize] < self.starts[expert as usize + 1]),
        );
    }

    /// The places of an expert.
    fn of(&self, expert: usize) -> Range<usize> {
        self.starts[expert] as usize..self.starts[expert + 1] as usize
    }

    /// The experts that rows go through, and the places of each.
    fn chosen(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.chosen.iter().map(|&expert| (expert as usize, self.of(expert as usize)))
    }
}

/// The products of all places with their experts' weights. Tiles are numbered by expert, then by rows, then by group of outputs.
struct Products<'a> {
    product: Product<'a>,
    weights: &'a [Weight],
    order: &'a ExpertOrder,
    groups: usize,
    row_tile: usize,
    tiles: usize,
}

impl<'a> Products<'a> {
    /// Of rows of `cols` inputs.
    fn new(product: Product<'a>, weights: &'a [Weight], order: &'a ExpertOrder, cols: usize) -> Self {
        let groups = order.chosen().map(|(expert, _)| weights[expert].groups()).max().unwrap_or(0);
        let most = order.chosen().map(|(_, places)| places.len()).max().unwrap_or(0);
        let row_tile = row_tile(most, cols).max(1);
        let tiles = order.chosen().map(|(_, places)| places.len().div_ceil(row_tile) * groups).sum();
        Self { product, weights, order, groups, row_tile, tiles }
    }

    /// Computes what this member can claim.
    fn run(&self, me: &Member<'_>, shares: &Shares) {
        let most = claim(self.groups, me.size());
        while let Some(range) = shares.take(me.rank, most) {
            let mut before = 0; // tiles of the experts that come first
            for (expert, places) in self.order.chosen() {
                let tiles = places.len().div_ceil(self.row_tile) * self.groups;
                for tile in range.start.max(before)..range.end.min(before + tiles) {
                    let first = places.start + (tile - before) / self.groups * self.row_tile;
                    let rows = first..(first + self.row_tile).min(places.end);
                    let (weight, group) = (&self.weights[expert], (tile - before) % self.groups);
                    if group < weight.groups() {
                        // SAFETY: the rows were converted before the barrier, the shapes were compared in `experts`, and one
                        // member claims this tile.
                        unsafe { self.product.compute(weight, group, rows) };
                    }
                }
                before += tiles;
            }
        }
    }
}

/// Converts rows for products.
struct Conversions([Option<ConvertKernel>; 2]);

impl Conversions {
    /// # Safety
    /// The row is one of those of `product`, and nothing else touches its converted forms meanwhile.
    unsafe fn convert(&self, product: &Product<'_>, row: usize) {
        for convert in self.0.into_iter().flatten() {
            // SAFETY: by this function's contract.
            unsafe { convert(&product.rows, row) };
        }
    }
}

/// What a mixture is computed with.
pub(crate) struct Kernels<'a> {
    pub(crate) matmul: Matmul<'a>,
    pub(crate) rows: &'a RowKernels,
}

/// `out = sum of weight * expert(x)` over the experts of each row; `scratch` has room for the rows of `room`.
pub(crate) fn experts(
    team: &Team,
    kernels: &Kernels<'_>,
    scratch: &mut Activations,
    order: &mut ExpertOrder,
    x: &Tensor,
    logits: &Tensor,
    routing: &Routing<'_, Tensor>,
    experts: &Experts<'_, Weight, Tensor>,
    room: &mut ExpertRoom<Tensor>,
    out: &mut Tensor,
) {
    let (rows, hidden, each) = (x.rows(), x.cols(), routing.experts_per_row);
    let ExpertRoom { inputs, gate_up, activation, outputs } = room;
    let (width, count) = (activation.cols(), logits.cols());
    assert_eq!((logits.rows(), out.cols()), (rows, hidden), "shapes of a mixture");
    assert_eq!((experts.gate_up.len(), experts.down.len()), (count, count), "experts of a mixture");
    assert_eq!((inputs.cols(), gate_up.cols(), outputs.cols()), (hidden, 2 * width, hidden), "room for a mixture");
    assert!((1..=count).contains(&each), "{each} of {count} experts");
    out.set_rows(rows);
    order.sort(logits, routing);
    let order = &*order;
    // Of the chosen alone: to look at all of them would take longer than a small product.
    for (weights, outputs, inputs) in [(experts.gate_up, 2 * width, hidden), (experts.down, hidden, width)] {
        let fits = |w: &Weight| w.rows() == outputs && w.cols() == inputs && w.is_for(kernels.matmul.kernels);
        let chosen = order.chosen().all(|(expert, _)| fits(&weights[expert]));
        assert!(chosen, "experts of [{outputs}, {inputs}] packed for this instruction set");
    }
    for tensor in [&mut *inputs, &mut *gate_up, &mut *activation, &mut *outputs] {
        tensor.set_rows(rows * each);
    }
    let matmul = kernels.matmul;
    let forms = [&*inputs, &*activation].map(|tensor| scratch.rows(tensor));
    let [inputs, gate_up, activation, outputs] = [inputs, gate_up, activation, outputs].map(Tensor::shared);
    // SAFETY: the first element of a matrix, or the end of one without any.
    let x_of = |tensor: SharedMut| unsafe { tensor.at(0, 0) }.cast_const();
    let product = |forms: Rows, x: SharedMut, out| Product { matmul, rows: Rows { x: x_of(x), ..forms }, out };
    let up = Products::new(product(forms[0], inputs, gate_up), experts.gate_up, order, hidden);
    let down = Products::new(product(forms[1], activation, outputs), experts.down, order, width);
    let conversions = [experts.gate_up, experts.down]
        .map(|weights| Conversions(matmul.conversions(order.chosen().map(|(expert, _)| &weights[expert]))));
    let shares = [&up, &down].map(|products| Shares::new(products.tiles, team.size()));
    let biases = [experts.gate_up_bias, experts.down_bias].map(|bias| bias.map(Tensor::as_slice));
    let gated = kernels.rows.activate_and_mul(experts.activation);
    let to = out.shared();
    team.run(|me| {
        for place in me.share(rows * each) {
            // SAFETY: each place is in one member's share.
            unsafe {
                inputs.row(place).copy_from_slice(x.row(order.sources[place] as usize));
                conversions[0].convert(&up.product, place);
            }
        }
        me.barrier();
        up.run(me, &shares[0]);
        me.barrier();
        let mine = me.share(rows * each);
        for (expert, places) in order.chosen() {
            for place in places.start.max(mine.start)..places.end.min(mine.end) {
                // SAFETY: each place is in one member's share, and the products of all are there.
                unsafe {
                    let row = gate_up.row(place);
                    add_bias(row, biases[0], expert);
                    let (gate, value) = row.split_at(width);
                    gated(gate.as_ptr(), value.as_ptr(), activation.row(place).as_mut_ptr(), width);
                    conversions[1].convert(&down.product, place);
                }
            }
        }
        me.barrier();
        down.run(me, &shares[1]);
        me.barrier();
        for row in me.share(rows) {
            // SAFETY: each row is in one member's share, and nobody writes the outputs any more.
            unsafe { combine(to.row(row), row, order, each, outputs, biases[1]) };
        }
    });
}

/// Adds the bias of an expert, of `[experts, len]`, to one of its rows.
fn add_bias(row: &mut [f32], bias: Option<&[f32]>, expert: usize) {
    if let Some(bias) = bias {
        let bias = &bias[expert * row.len()..][..row.len()];
        row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
    }
}

/// Sums the outputs of a row's experts. Additions and multiplications are rounded alike everywhere, so there are no kernels for it.
///
/// # Safety
/// Nobody writes `outputs` meanwhile but their biases, which belong to the row alone.
unsafe fn combine(
    to: &mut [f32],
    row: usize,
    order: &ExpertOrder,
    each: usize,
    outputs: SharedMut,
    bias: Option<&[f32]>,
) {
    to.fill(0.0);
    let routes = order.routes[row * each..].iter().zip(&order.places[row * each..]).take(each);
    for (route, &place) in routes {
        // SAFETY: the place is this row's alone.
        let output = unsafe { outputs.row(place as usize) };
        add_bias(output, bias, route.expert as usize);
        to.iter_mut().zip(output).for_each(|(to, output)| *to += route.weight * *output);
    }
}
