//! How much memory this process may use: the machine's, or its control group's where that is tighter.

use nanovllm_backend::Memory;

#[cfg(target_os = "linux")]
mod linux;

/// The memory this process may use, and how much of it is taken now; `None` when the system does not say.
#[cfg(target_os = "linux")]
pub fn host_memory() -> Option<Memory> {
    linux::detect(std::path::Path::new("/"))
}

/// The memory this process may use, and how much of it is taken now; `None` when the system does not say.
#[cfg(not(target_os = "linux"))]
pub fn host_memory() -> Option<Memory> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let limit = system.total_memory();
    (limit > 0).then(|| Memory { limit, used: limit.saturating_sub(system.available_memory()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        let memory = host_memory().unwrap();
        assert!(memory.limit > 0 && memory.available() <= memory.limit);
    }
}
