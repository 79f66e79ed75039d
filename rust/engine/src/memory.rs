//! How much memory this process may use: the machine's, or its control group's where that is tighter.

#[cfg(target_os = "linux")]
mod linux;

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

    /// Asks the system; `None` when it does not say.
    #[cfg(target_os = "linux")]
    pub fn detect() -> Option<Self> {
        linux::detect(std::path::Path::new("/"))
    }

    /// Asks the system; `None` when it does not say.
    #[cfg(not(target_os = "linux"))]
    pub fn detect() -> Option<Self> {
        let mut system = sysinfo::System::new().ok()?;
        system.refresh_memory();
        let limit = system.total_memory();
        (limit > 0).then(|| Self { limit, used: limit.saturating_sub(system.available_memory()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        let memory = Memory::detect().unwrap();
        assert!(memory.limit > 0 && memory.available() <= memory.limit);
    }
}
