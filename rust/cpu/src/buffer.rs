//! Zeroed memory for activations and the KV cache, straight from the system.

use std::marker::PhantomData;

use bytemuck::Pod;
use memmap2::MmapMut;
use nanovllm_backend::{Error, Result};

/// From this size on a buffer asks for huge pages, as a smaller one would not fill any.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// `len` values of `T`, page-aligned, zero at first. A page takes memory when it is first written, so a large buffer costs what
/// is used of it.
pub(crate) struct Buffer<T> {
    map: MmapMut,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// A buffer of zeros; `what` names it in the error.
    pub(crate) fn zeroed(len: usize, what: &'static str) -> Result<Self> {
        let bytes = len.saturating_mul(size_of::<T>());
        let out_of_memory = |reason: String| Error::OutOfMemory { what, bytes, reason };
        if bytes > isize::MAX as usize {
            return Err(out_of_memory("larger than the address space".into()));
        }
        let map = MmapMut::map_anon(bytes.max(1)).map_err(|e| out_of_memory(e.to_string()))?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE {
            // A refusal (huge pages switched off) costs speed, not correctness.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self { map, len, element: PhantomData })
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        &bytemuck::cast_slice(&self.map[..self.len * size_of::<T>()])[..self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        let bytes = self.len * size_of::<T>();
        bytemuck::cast_slice_mut(&mut self.map[..bytes])
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.map.as_mut_ptr().cast()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_aligned_and_writable() {
        let mut b = Buffer::<f32>::zeroed(1000, "test").expect("4 kB");
        assert!(b.as_slice().iter().all(|&x| x == 0.0));
        assert_eq!(b.as_slice().as_ptr().addr() % 64, 0);
        b.as_mut_slice()[999] = 1.0;
        assert_eq!(b.as_slice()[999], 1.0);
        assert_eq!(b.len(), 1000);
        assert!(Buffer::<f32>::zeroed(0, "empty").expect("empty").as_slice().is_empty());
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        let error = Buffer::<f32>::zeroed(usize::MAX / 2, "the moon").err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("the moon")));
    }
}
