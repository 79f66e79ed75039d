//! nano-vLLM's CUDA graphs come in a few batch sizes, and a decode step runs on the smallest that holds it. The CPU needs
//! no graphs; a device whose steps are captured takes its sizes from here.

/// The most sequences of a step that nano-vLLM captures.
const MAX_GRAPH_BATCH: usize = 512;

/// The batch sizes to capture for steps of at most `max_num_seqs` sequences: 1, 2, 4, 8, then every 16.
pub fn graph_batch_sizes(max_num_seqs: usize) -> Vec<usize> {
    [1, 2, 4, 8].into_iter().chain((16..=max_num_seqs.min(MAX_GRAPH_BATCH)).step_by(16)).collect()
}

/// The smallest of the ascending `sizes` that holds a decode step of `num_seqs` sequences; `None` when it is not captured
/// and runs as it is. nano-vLLM fails there when `max_num_seqs` is no multiple of 16.
pub fn graph_batch_size(sizes: &[usize], num_seqs: usize) -> Option<usize> {
    sizes.get(sizes.partition_point(|&size| size < num_seqs)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_by_sixteen() {
        assert_eq!(graph_batch_sizes(1), [1, 2, 4, 8]);
        assert_eq!(graph_batch_sizes(15), [1, 2, 4, 8]);
        assert_eq!(graph_batch_sizes(33), [1, 2, 4, 8, 16, 32]);
        assert_eq!((graph_batch_sizes(9999).len(), graph_batch_sizes(9999).last()), (4 + 32, Some(&512)));
    }

    #[test]
    fn a_step_takes_the_smallest_that_holds_it() {
        let sizes = graph_batch_sizes(40);
        let chosen: Vec<_> = [1, 2, 3, 8, 9, 16, 17, 32].map(|n| graph_batch_size(&sizes, n).unwrap()).into();
        assert_eq!(chosen, [1, 2, 4, 8, 16, 16, 32, 32]);
        assert_eq!(graph_batch_size(&sizes, 33), None);
        assert_eq!(graph_batch_size(&graph_batch_sizes(512), 513), None);
    }
}
