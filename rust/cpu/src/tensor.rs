//! Activation matrices.

use nanovllm_backend::Result;

use crate::buffer::Buffer;

/// A row-major f32 matrix with a fixed capacity of rows and a current number of rows.
pub struct Tensor {
    data: Buffer<f32>,
    rows: usize,
    cols: usize,
    capacity: usize,
}

impl Tensor {
    pub(crate) fn zeroed(rows: usize, cols: usize) -> Result<Self> {
        let len = rows.saturating_mul(cols);
        Ok(Self { data: Buffer::zeroed(len, "an activation buffer")?, rows, cols, capacity: rows })
    }

    /// The current number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Makes `rows` the current number of rows; what new rows hold is unspecified.
    pub(crate) fn set_rows(&mut self, rows: usize) {
        assert!(rows <= self.capacity, "{rows} rows in a tensor of {}", self.capacity);
        self.rows = rows;
    }

    /// The values of the current rows, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data.as_slice()[..self.rows * self.cols]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        let len = self.rows * self.cols;
        &mut self.data.as_mut_slice()[..len]
    }

    pub(crate) fn row(&self, i: usize) -> &[f32] {
        &self.as_slice()[i * self.cols..(i + 1) * self.cols]
    }

    /// A view for the threads of the team, each of which writes rows or columns of its own.
    pub(crate) fn shared(&mut self) -> SharedMut {
        SharedMut { ptr: self.data.as_mut_ptr(), rows: self.rows, cols: self.cols }
    }
}

/// A matrix that several threads of the team write at once, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut {
    ptr: *mut f32,
    rows: usize,
    cols: usize,
}

// SAFETY: the pointer comes from a tensor borrowed mutably for as long as the team works on it; `row` and `at` leave it to
// their callers that no two threads touch the same element.
unsafe impl Send for SharedMut {}
// SAFETY: what a thread does through a shared reference is what it may do through its own copy.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    /// Row `i`.
    ///
    /// # Safety
    /// The tensor is alive, and no other thread reads or writes this row while the slice lives.
    #[allow(clippy::mut_from_ref)] // that is what the type is for
    pub(crate) unsafe fn row(&self, i: usize) -> &mut [f32] {
        debug_assert!(i < self.rows);
        // SAFETY: in bounds (`rows * cols` values from `ptr`); exclusive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(i * self.cols), self.cols) }
    }

    /// Address of element (`row`, `col`); may point one past the end.
    ///
    /// # Safety
    /// `row * cols + col <= rows * cols`.
    pub(crate) unsafe fn at(&self, row: usize, col: usize) -> *mut f32 {
        debug_assert!(row * self.cols + col <= self.rows * self.cols);
        // SAFETY: in bounds by this function's contract.
        unsafe { self.ptr.add(row * self.cols + col) }
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }
}
