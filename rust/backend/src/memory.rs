//! How much memory there is for weights and caches.

/// A memory limit and how much of it is taken: the engine sizes the KV cache by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All there is, in bytes.
    pub limit: u64,
    /// What is taken, in bytes; caches that the system gives up on demand do not count.
    pub used: u64,
}

impl Memory {
    /// What can still be had, in bytes.
    pub fn available(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}
