//! Measures how fast this machine reads memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use nanovllm_devices::host_memory;
use serde::Serialize;

/// How fast memory was read.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Bandwidth {
    /// How many threads read at the same time.
    pub(crate) threads: usize,
    /// The bytes that all threads together read in a second, in the best of several passes.
    pub(crate) bytes_per_second: f64,
}

/// The size of the buffer that is read: more than the last-level cache of any machine but the largest.
const BYTES: u64 = 512 << 20;
/// How long to go on measuring.
const TIME: Duration = Duration::from_millis(400);

/// Reads a buffer larger than the caches from `threads` threads, for about half a second; `None` where there is no
/// memory for it.
pub(crate) fn measure(threads: usize) -> Option<Bandwidth> {
    let available = host_memory().map_or(BYTES, |memory| memory.available());
    let bytes = usize::try_from(BYTES.min(available / 4)).ok()?;
    let share = bytes / threads / STRIDE * STRIDE;
    if share == 0 {
        return None;
    }
    // On huge pages where the system has them, for the engine's weights lie on such.
    let mut buffer = MmapMut::map_anon(share * threads).ok()?;
    #[cfg(target_os = "linux")]
    let _ = buffer.advise(memmap2::Advice::HugePage);
    // Pages exist once they are written; until then all read the system's one page of zeros.
    buffer.fill(1);
    let started = Instant::now();
    let mut fastest = Duration::MAX;
    while started.elapsed() < TIME {
        let pass = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks_exact(share) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
        fastest = fastest.min(pass.elapsed());
    }
    let bytes_per_second = (share * threads) as f64 / fastest.as_secs_f64();
    Some(Bandwidth { threads, bytes_per_second })
}

/// How many bytes are added up at a time: enough sums side by side that memory, not addition, is the limit.
const STRIDE: usize = 256;

fn sum(part: &[u8]) -> u64 {
    let mut sums = [0u64; STRIDE / 8];
    for chunk in part.chunks_exact(STRIDE) {
        for (sum, word) in sums.iter_mut().zip(chunk.chunks_exact(8)) {
            *sum = sum.wrapping_add(u64::from_ne_bytes([
                word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
            ]));
        }
    }
    sums.iter().fold(0, |a, &b| a.wrapping_add(b))
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_read_at_some_speed() {
        let measured = super::measure(2).unwrap();
        // Memory is faster than 1 MB/s anywhere, and slower than 100 TB/s.
        assert!((1e6..1e14).contains(&measured.bytes_per_second), "{measured:?}");
    }
}
