//! Memory that weights and caches are kept in.

/// A memory limit and how much of it is taken, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All there is.
    pub limit: u64,
    /// What cannot be had any more; caches that the system gives up on demand do not count.
    pub used: u64,
}

impl Memory {
    /// What can still be had.
    pub fn available(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}
