//! From a step as nano-vLLM's context describes it to the engine's form of it.

use nanovllm_model::ModelInput;
use pyo3::PyResult;

use crate::errors::precondition;

/// The context's arrays.
pub(crate) struct StepArrays {
    /// Where the rows of each sequence of a prefill begin, and where the last end.
    pub(crate) cu_seqlens_q: Option<Vec<u32>>,
    /// The same for its keys.
    pub(crate) cu_seqlens_k: Option<Vec<u32>>,
    /// The slot that each row is stored in.
    pub(crate) slot_mapping: Vec<i32>,
    /// Tokens that each sequence of a decode step has in the cache.
    pub(crate) context_lens: Option<Vec<u32>>,
    /// Blocks of each sequence; None in a prefill without cached keys.
    pub(crate) block_tables: Option<Vec<Vec<i32>>>,
}

impl StepArrays {
    /// The engine's form of the step. Only what cannot be laid out at all is refused here; the engine checks the rest.
    pub(crate) fn input(
        self,
        input_ids: Vec<u32>,
        positions: Vec<u32>,
        is_prefill: bool,
        block_size: usize,
    ) -> PyResult<ModelInput> {
        let (cu_seqlens_q, context_lens) = if is_prefill {
            let (Some(queries), Some(keys)) = (self.cu_seqlens_q, self.cu_seqlens_k) else {
                return Err(precondition("a prefill needs cu_seqlens_q and cu_seqlens_k; set_context gives them"));
            };
            let lens = keys.windows(2).map(|pair| pair[1].checked_sub(pair[0])).collect::<Option<Vec<u32>>>();
            let Some(lens) = lens else { return Err(precondition("cu_seqlens_k must not decrease")) };
            (queries, lens)
        } else {
            let Some(lens) = self.context_lens else {
                return Err(precondition("a decode step needs context_lens; set_context gives them"));
            };
            ((0..=lens.len() as u32).collect(), lens)
        };
        let tables = match self.block_tables {
            Some(tables) => tables,
            None => tables_of_slots(&cu_seqlens_q, &self.slot_mapping, block_size)?,
        };
        let table_stride = tables.iter().map(Vec::len).max().unwrap_or(0);
        let pad = |mut table: Vec<i32>| {
            table.resize(table_stride, -1);
            table
        };
        let block_tables = tables.into_iter().flat_map(pad).collect();
        let slot_mapping = self.slot_mapping;
        Ok(ModelInput { input_ids, positions, cu_seqlens_q, context_lens, slot_mapping, block_tables, table_stride })
    }
}

/// The blocks that the rows of whole prompts are stored in.
fn tables_of_slots(offsets: &[u32], slots: &[i32], block_size: usize) -> PyResult<Vec<Vec<i32>>> {
    let table = |ends: &[u32]| {
        let rows = slots.get(ends[0] as usize..ends[1] as usize)?;
        Some(rows.iter().step_by(block_size).map(|slot| slot.div_euclid(block_size as i32)).collect())
    };
    let tables: Option<Vec<Vec<i32>>> = offsets.windows(2).map(table).collect();
    tables.ok_or_else(|| precondition("cu_seqlens_q must be offsets of rows, and slot_mapping must have one for each"))
}
