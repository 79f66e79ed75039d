//! Memory that attention works in. It is allocated when it is first needed and kept from call to call.

use std::sync::Mutex;

use super::plan::Plan;
use crate::kernels::generic::attention::{PARTITION, PartialSoftmax, Visible};

/// The scratch of a team.
pub(crate) struct Scratch {
    pub(super) plan: Plan,
    pub(super) threads: Vec<Mutex<ThreadScratch>>,
    /// Results of the partitions of split units.
    pub(super) partials: Partials,
}

impl Scratch {
    /// For a team of `threads`.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            plan: Plan::default(),
            threads: (0..threads).map(|_| Mutex::default()).collect(),
            partials: Partials::default(),
        }
    }
}

/// What the scratch of a thread must have room for.
pub(super) struct Sizes {
    /// The most query rows of a unit.
    pub(super) rows: usize,
    pub(super) head_dim: usize,
    /// `head_dim` rounded up to 16.
    pub(super) width: usize,
}

/// One thread's scratch.
#[derive(Default)]
pub(super) struct ThreadScratch {
    pub(super) queries: Lines,
    pub(super) scores: Lines,
    pub(super) total: Partials,
    pub(super) next: Partials,
    /// What each query row of the unit sees of the partition at hand.
    pub(super) visible: Vec<Visible>,
    /// Copies of the keys and values of a partition that does not lie in one block of the cache.
    pub(super) keys: Lines,
    pub(super) values: Lines,
}

impl ThreadScratch {
    pub(super) fn reserve(&mut self, sizes: &Sizes) {
        self.queries.reserve(sizes.rows * sizes.head_dim);
        self.scores.reserve(sizes.rows * PARTITION);
        self.total.reserve(sizes.rows, sizes.width);
        self.next.reserve(sizes.rows, sizes.width);
        self.visible.reserve(sizes.rows.saturating_sub(self.visible.len()));
        self.keys.reserve(PARTITION * sizes.head_dim);
        self.values.reserve(PARTITION * sizes.width);
    }
}

/// Room for partial softmaxes.
#[derive(Default)]
pub(super) struct Partials {
    out: Lines,
    max: Lines,
    sum: Lines,
}

impl Partials {
    pub(super) fn reserve(&mut self, rows: usize, width: usize) {
        self.out.reserve(rows * width);
        self.max.reserve(rows);
        self.sum.reserve(rows);
    }

    /// The rows from `row` on, which must be among those reserved.
    pub(super) fn at(&mut self, row: usize, width: usize) -> PartialSoftmax {
        PartialSoftmax {
            out: self.out.as_mut_ptr().wrapping_add(row * width),
            max: self.max.as_mut_ptr().wrapping_add(row),
            sum: self.sum.as_mut_ptr().wrapping_add(row),
        }
    }
}

/// A cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// f32 values on cache lines of their own; grows, never shrinks.
#[derive(Default)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// Room for `values`; new ones are zero.
    fn reserve(&mut self, values: usize) {
        let lines = values.div_ceil(16);
        if lines > self.0.len() {
            // Doubling keeps a growing context from allocating at every step.
            self.0.resize(lines.next_power_of_two(), Line([0.0; 16]));
        }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    pub(super) fn as_mut_bytes(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
