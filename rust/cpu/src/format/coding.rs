//! A quantised type, as packing and the kernels see it.

use crate::layout::{Layout, StoredBlock};

/// How weights of a quantised type are stored.
#[derive(Debug)]
pub(crate) struct Coding {
    pub(crate) layout: Layout,
    /// What each code stands for, in a layout with a table.
    pub(crate) table: [i8; 16],
    /// Multiplies `d` in a layout with a table: a power of two that lets the table hold integers.
    pub(crate) factor: f32,
    /// Takes a block, as the file stores it, apart.
    pub(crate) read: fn(&[u8], &mut StoredBlock),
}

impl Coding {
    pub(super) const fn linear(layout: Layout, read: fn(&[u8], &mut StoredBlock)) -> Self {
        Self { layout, table: [0; 16], factor: 1.0, read }
    }

    pub(super) const fn table(layout: Layout, table: [i8; 16], read: fn(&[u8], &mut StoredBlock)) -> Self {
        Self { layout, table, factor: 1.0, read }
    }
}
