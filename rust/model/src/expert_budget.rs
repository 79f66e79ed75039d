//! How much memory the experts of a mixture may take, where not all of them fit.

use nanovllm_gguf::FilePart;

/// The memory that is left for experts, and what became of those that it is not enough for.
pub(crate) struct ExpertBudget {
    /// What all weights would take, and what they may, in bytes.
    needed: u64,
    memory: u64,
    /// What of that is left for experts.
    left: u64,
    /// The bytes of experts that stay in files, as they have them, and a part of each of these files.
    in_files: u64,
    files: Vec<FilePart>,
    /// What experts take that could not stay in their file.
    beyond: u64,
}

impl ExpertBudget {
    /// The budget of a model whose experts take `experts` bytes on the device and whose other weights `others`, of which all may
    /// take `memory`; `None` where they fit.
    pub(crate) fn new(experts: u64, others: u64, memory: u64) -> Option<Self> {
        let needed = experts.saturating_add(others);
        let left = memory.saturating_sub(others);
        (needed > memory).then_some(Self { needed, memory, left, in_files: 0, files: Vec::new(), beyond: 0 })
    }

    /// Takes `bytes` of what is left, if there is so much.
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        let fits = bytes <= self.left;
        if fits {
            self.left -= bytes;
        }
        fits
    }

    /// Counts `bytes` of experts that stay in `file`.
    pub(crate) fn stays(&mut self, file: FilePart, bytes: usize) {
        self.in_files += bytes as u64;
        if !self.files.iter().any(|known| known.is_of_same_file(&file)) {
            self.files.push(file);
        }
    }

    /// Counts `bytes` that experts take though there is no room for them.
    pub(crate) fn exceed(&mut self, bytes: u64) {
        self.beyond += bytes;
    }

    /// A part of each file that experts stay in.
    pub(crate) fn files(&self) -> &[FilePart] {
        &self.files
    }

    /// What a user should know of it, a line each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let why = format!(
            "weights would take {:.1} GB and may take {:.1} GB (gpu_memory_utilization of what is free)",
            gigabytes(self.needed),
            gigabytes(self.memory)
        );
        let in_files = format!(
            "{:.1} GB of experts stay in the file: {why}. They are read and arranged anew whenever tokens go through them, which is \
             several times slower",
            gigabytes(self.in_files)
        );
        let beyond = format!(
            "{:.1} GB of experts are in memory though there is no room for them: {why}. They could stay in a GGUF file on a disk, on \
             the device cpu",
            gigabytes(self.beyond)
        );
        let lines = [(self.in_files, in_files), (self.beyond, beyond)];
        lines.into_iter().filter(|(bytes, _)| *bytes > 0).map(|(_, line)| line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nanovllm_gguf::FileBytes;
    use std::sync::Arc;

    #[test]
    fn what_fits_has_no_budget() {
        assert!(ExpertBudget::new(60, 40, 100).is_none());
        assert!(ExpertBudget::new(60, 40, 99).is_some());
        assert!(ExpertBudget::new(u64::MAX, 40, u64::MAX - 1).is_some());
    }

    #[test]
    fn experts_take_what_others_leave() {
        let mut budget = ExpertBudget::new(60, 40, 70).unwrap();
        assert_eq!([20, 20, 10, 1].map(|bytes| budget.take(bytes)), [true, false, true, false]);
        let mut none = ExpertBudget::new(60, 40, 10).unwrap();
        assert!(!none.take(1));
    }

    #[test]
    fn files_are_listed_once_and_told() {
        let file = Arc::new(FileBytes::from(vec![0; 8]));
        let mut budget = ExpertBudget::new(6_000_000_000, 0, 1_000_000_000).unwrap();
        assert!(budget.notes().is_empty() && budget.files().is_empty());
        for range in [0..4, 4..8] {
            budget.stays(FilePart::new(&file, range).unwrap(), 2_000_000_000);
        }
        assert_eq!(budget.files().len(), 1);
        let notes = budget.notes();
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].contains("4.0 GB of experts stay") && notes[0].contains("would take 6.0 GB and may take 1.0 GB")
        );
        budget.exceed(3_000_000_000);
        assert!(budget.notes()[1].contains("3.0 GB of experts are in memory"));
    }
}
