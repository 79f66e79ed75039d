//! Memory for packed weights, cut from large mappings.
//!
//! A step reads every weight once. On pages of 4 kB it would miss the processor's translation buffer for most of them; huge pages
//! of 2 MB avoid that. A matrix of one or two megabytes would fill no huge page of its own, so several share a mapping.

use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{MmapMut, MmapRaw};
use nanovllm_backend::{Error, Result};

/// Bytes of a mapping that several matrices share. Its pages take memory when they are first written, so what is left over of
/// the last mapping costs nothing.
const SHARED: usize = 64 << 20;
/// Where a matrix begins: at a cache line, which is also the width of the widest vector.
const ALIGNMENT: usize = 64;

/// Hands out zeroed memory. The system gets a mapping back when the last piece of it is dropped, but the one being cut up not
/// before the arena itself is dropped or has begun another.
#[derive(Default)]
pub(crate) struct Arena {
    /// The mapping being cut up, and how many of its bytes are taken.
    current: Mutex<Option<(Arc<MmapRaw>, usize)>>,
}

/// Zeroed bytes that are nobody else's.
pub(crate) struct Piece {
    map: Arc<MmapRaw>,
    offset: usize,
    len: usize,
}

impl Arena {
    /// `len` zeroed bytes; `what` names them in the error.
    pub(crate) fn zeroed(&self, len: usize, what: &'static str) -> Result<Piece> {
        if len > SHARED / 4 {
            return Ok(Piece { map: map(len, what)?, offset: 0, len });
        }
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (shared, taken) = match current.take().filter(|(_, taken)| taken + len <= SHARED) {
            Some(current) => current,
            None => (map(SHARED, what)?, 0),
        };
        let piece = Piece { map: Arc::clone(&shared), offset: taken, len };
        *current = Some((shared, (taken + len).next_multiple_of(ALIGNMENT)));
        Ok(piece)
    }
}

fn map(bytes: usize, what: &'static str) -> Result<Arc<MmapRaw>> {
    let out_of_memory = |reason: String| Error::OutOfMemory { what, bytes, reason };
    if bytes > isize::MAX as usize {
        return Err(out_of_memory("larger than the address space".into()));
    }
    let map = MmapMut::map_anon(bytes.max(1)).map_err(|e| out_of_memory(e.to_string()))?;
    // A refusal (huge pages switched off) costs speed, not correctness.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(Arc::new(map.into()))
}

impl Piece {
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the range lies in the mapping, which lives as long as `self` and began as zeros; no other piece overlaps it,
        // and writing takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.offset), self.len) }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.offset)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zeroed_aligned_and_apart() {
        let arena = Arena::default();
        let mut pieces: Vec<Piece> =
            [1, 100, 0, SHARED / 4, 7, SHARED / 4 + 1].map(|n| arena.zeroed(n, "test").expect("fits")).into();
        pieces.extend((0..8).map(|_| arena.zeroed(SHARED / 5, "test").expect("fits")));
        for (i, piece) in pieces.iter_mut().enumerate() {
            assert_eq!(piece.as_mut_ptr().addr() % ALIGNMENT, 0);
            assert!(piece.as_slice().iter().all(|&byte| byte == 0));
            // SAFETY: the piece has that many bytes, and is borrowed mutably.
            unsafe { std::ptr::write_bytes(piece.as_mut_ptr(), i as u8 + 1, piece.len()) };
        }
        for (i, piece) in pieces.iter().enumerate() {
            assert!(piece.as_slice().iter().all(|&byte| byte == i as u8 + 1), "piece {i} was overwritten");
        }
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        let error = Arena::default().zeroed(usize::MAX / 2, "the moon").err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("the moon")));
    }
}
