//! Memory on Linux: `/proc/meminfo`, and control groups of versions 1 and 2.

use nanovllm_backend::Memory;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// The memory of the machine or of a control group that holds this process: of those the one with the least still
/// available. `root` is `/` but in tests.
pub(super) fn detect(root: &Path) -> Option<Memory> {
    let machine = machine(&read_to_string(root.join("proc/meminfo")).ok()?)?;
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| group_directories(root, line)).filter_map(|dir| group(&dir));
    // A group's limit above the machine's limits nothing.
    let limits = limits.filter(|group| group.limit < machine.limit);
    limits.chain([machine]).min_by_key(Memory::available)
}

/// The machine's memory, from the contents of `/proc/meminfo`.
fn machine(meminfo: &str) -> Option<Memory> {
    let bytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let limit = bytes("MemTotal")?;
    let available = bytes("MemAvailable").or_else(|| bytes("MemFree"))?;
    Some(Memory { limit, used: limit.saturating_sub(available) })
}

/// Directories of the memory group in one line of `/proc/self/cgroup` (`id:controllers:path`) and of its ancestors. In a
/// container the path may name what the host sees; the mount's own root is then the group, and it is always among them.
fn group_directories(root: &Path, line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
        return Vec::new();
    };
    let mount = if controllers.is_empty() {
        root.join("sys/fs/cgroup")
    } else if controllers.split(',').any(|name| name == "memory") {
        root.join("sys/fs/cgroup/memory")
    } else {
        return Vec::new();
    };
    Path::new(path.trim_start_matches('/')).ancestors().map(|group| mount.join(group)).collect()
}

/// The memory of the control group at `dir`; `None` where it has no limit.
fn group(dir: &Path) -> Option<Memory> {
    let number = |name: &str| read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let charged = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    // Pages of files are charged to the group but given up for whoever needs memory, those in use lately after the others, unless they
    // are still to be written: a weight file that was read is nothing else.
    let stat = read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let field = |name: &str| {
        let value = |name: &str| {
            let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(key, _)| *key == name)?.1.trim().parse::<u64>().ok()
        };
        // Of the groups below too, as version 1 calls it.
        value(&format!("total_{name}")).or_else(|| value(name)).unwrap_or(0)
    };
    let unwritten: u64 = ["file_dirty", "file_writeback", "dirty", "writeback"].into_iter().map(field).sum();
    let reclaimable = (field("inactive_file") + field("active_file")).saturating_sub(unwritten);
    Some(Memory { limit, used: charged.saturating_sub(reclaimable) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MEMINFO: &str = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\nBuffers: 1 kB\n";

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn detected(files: &[(&str, &str)]) -> Option<Memory> {
        detect(system(files).path())
    }

    #[test]
    fn a_machine_without_groups() {
        let memory = detected(&[("proc/meminfo", MEMINFO)]).unwrap();
        assert_eq!(memory, Memory { limit: 1000 << 10, used: 400 << 10 });
        let old = detected(&[("proc/meminfo", "MemTotal: 10 kB\nMemFree: 4 kB\n")]).unwrap();
        assert_eq!(old.available(), 4 << 10);
    }

    #[test]
    fn version_2_takes_the_tightest_ancestor() {
        let files = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "5\n"),
            ("sys/fs/cgroup/a/memory.max", "9000\n"),
            ("sys/fs/cgroup/a/memory.current", "5000\n"),
            (
                "sys/fs/cgroup/a/memory.stat",
                "anon 1\nfile_dirty 5\ninactive_file 1000\nactive_file 505\nfile_writeback 100\n",
            ),
        ];
        assert_eq!(detected(&files).unwrap(), Memory { limit: 9000, used: 3600 });
    }

    #[test]
    fn version_1_reads_the_memory_controller() {
        let files = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "12:cpu,cpuacct:/x\n4:memory:/docker/elsewhere\n1:name=systemd:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8000"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "3000"),
            (
                "sys/fs/cgroup/memory/memory.stat",
                "inactive_file 1\ndirty 9\ntotal_inactive_file 2000\ntotal_active_file 300\ntotal_dirty 100\n",
            ),
        ];
        assert_eq!(detected(&files).unwrap(), Memory { limit: 8000, used: 800 });
    }

    #[test]
    fn an_unlimited_or_malformed_group_limits_nothing() {
        let unlimited = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "4:memory:/\nnonsense\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "3000"),
        ];
        assert_eq!(detected(&unlimited).unwrap().limit, 1000 << 10);
        let malformed = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "a lot"),
            ("sys/fs/cgroup/memory.current", "-3"),
        ];
        assert_eq!(detected(&malformed).unwrap().limit, 1000 << 10);
        assert_eq!(detected(&[("proc/meminfo", "MemTotal: many kB\n")]), None);
        assert_eq!(detected(&[]), None);
    }
}
