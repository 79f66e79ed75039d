//! One forward pass over the caller's paged caches, which are plain arrays. The blocks that the pass refers to are copied
//! into a cache of the device, made for this pass alone, and the rows that it stores are copied back.

use std::collections::{BTreeMap, BTreeSet};

use nanovllm_backend::{Context, DType, HeadLayout, Inspect, KvCacheSpec, KvHeads, LayerCache, Result};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::by_hand::arrays::{Array, Integers, Kind, scatter};
use crate::by_hand::layers::attention::{
    cache_blocks, cache_dtype, consecutive, offsets, places, renumbered, same_len,
};
use crate::by_hand::layers::paged::{Batch, Tables};

/// The `Context` of `nanovllm.utils.context`.
#[derive(FromPyObject)]
pub(crate) struct ContextFace<'py> {
    is_prefill: bool,
    cu_seqlens_q: Option<Bound<'py, PyAny>>,
    cu_seqlens_k: Option<Bound<'py, PyAny>>,
    slot_mapping: Option<Bound<'py, PyAny>>,
    context_lens: Option<Bound<'py, PyAny>>,
    block_tables: Option<Bound<'py, PyAny>>,
}

impl ContextFace<'_> {
    /// The sequences of a pass over `rows` rows, each of which sees something, and how many the caller has with empty ones.
    fn batch(&self, rows: usize) -> PyResult<(Batch, usize)> {
        let (cu_seqlens_q, context_lens) = if self.is_prefill {
            let cu_seqlens_q = offsets(given(self.cu_seqlens_q.as_ref(), "cu_seqlens_q")?, "cu_seqlens_q", rows)?;
            let cu_seqlens_k = given(self.cu_seqlens_k.as_ref(), "cu_seqlens_k")?;
            let cu_seqlens_k = Integers::<u32>::read(cu_seqlens_k, "cu_seqlens_k", 1, "token offsets")?.values;
            same_len(("cu_seqlens_k", cu_seqlens_k.len()), ("cu_seqlens_q", cu_seqlens_q.len()))?;
            let lens = cu_seqlens_k.windows(2).map(|w| w[1].checked_sub(w[0])).collect::<Option<Vec<_>>>();
            (cu_seqlens_q, lens.ok_or_else(|| PyValueError::new_err("cu_seqlens_k must never fall"))?)
        } else {
            let lens = given(self.context_lens.as_ref(), "context_lens")?;
            let lens = Integers::<u32>::read(lens, "context_lens", 1, "numbers of tokens")?.values;
            same_len(("context_lens", lens.len()), ("the decoded rows", rows))?;
            ((0..=u32::try_from(rows)?).collect(), lens)
        };
        let batch = Batch::new(&cu_seqlens_q, &context_lens);
        if batch.num_rows() != rows {
            return Err(PyValueError::new_err("the context has a sequence with fewer tokens than rows"));
        }
        Ok((batch, context_lens.len()))
    }
}

/// What an `Attention` has for the caller to set: caches `[num_blocks, block_size, num_kv_heads, head_dim]`, or empty ones.
#[derive(FromPyObject)]
pub(crate) struct CacheFace {
    k_cache: Py<PyAny>,
    v_cache: Py<PyAny>,
}

impl CacheFace {
    fn is_empty(&self, py: Python<'_>) -> PyResult<bool> {
        let len = |cache: &Py<PyAny>| -> PyResult<usize> {
            Ok(cache.bind(py).getattr("shape")?.extract::<Vec<usize>>()?.iter().product())
        };
        Ok(len(&self.k_cache)? == 0 || len(&self.v_cache)? == 0)
    }

    fn dtype(&self, py: Python<'_>) -> PyResult<DType> {
        let keys = Kind::of(self.k_cache.bind(py), "k_cache")?;
        Ok(cache_dtype(&keys, &Kind::of(self.v_cache.bind(py), "v_cache")?))
    }
}

/// One forward pass as the device sees it, whose cache has only the blocks that the pass refers to.
pub(super) struct ForwardPass {
    batch: Batch,
    tables: Tables,
    /// Where each row's key and value go in the device's cache.
    slots: Vec<i32>,
    spec: KvCacheSpec,
    /// What the blocks hold before the pass; empty where the pass sees its own rows alone.
    before: CacheContents,
}

/// What goes back to the caller's caches.
pub(super) struct Stores {
    /// The rows of the pass that the caller wants stored.
    rows: Vec<usize>,
    /// The blocks, and the offsets in them, where these rows go.
    places: [Vec<i64>; 2],
}

/// Keys and values of each layer, each `[tokens, num_kv_heads * head_dim]`.
pub(super) type CacheContents = Vec<(Vec<f32>, Vec<f32>)>;

impl ForwardPass {
    /// The pass over `rows` rows that `context` describes, with one cache a layer; `dtype` is the activations'.
    ///
    /// # Errors
    /// ValueError for a context that lacks something, contradicts itself, or refers to what the caches do not have.
    pub(super) fn new(
        py: Python<'_>,
        context: &ContextFace<'_>,
        layers: &[&CacheFace],
        heads: HeadLayout,
        rows: usize,
        dtype: DType,
    ) -> PyResult<(Self, Stores)> {
        let (batch, num_seqs) = context.batch(rows)?;
        let empty = layers.iter().map(|layer| layer.is_empty(py)).collect::<PyResult<Vec<_>>>()?;
        if empty.contains(&false) && empty.contains(&true) {
            return Err(PyValueError::new_err("either all layers have a k_cache and a v_cache, or none"));
        }
        if empty.contains(&true) {
            let (tables, slots) = own_rows(context, &batch)?;
            let pass = Self::over(batch, tables, slots, heads, layers.len(), dtype, Vec::new());
            return Ok((pass, Stores { rows: Vec::new(), places: [Vec::new(), Vec::new()] }));
        }
        let (num_blocks, block_size) = common_blocks(py, layers, heads)?;
        let slot_mapping = given(context.slot_mapping.as_ref(), "slot_mapping")?;
        let slot_mapping = Integers::<i64>::read(slot_mapping, "slot_mapping", 1, "slots")?.values;
        same_len(("slot_mapping", slot_mapping.len()), ("the input", rows))?;
        let (_, places) = places(&slot_mapping, num_blocks, block_size)?;
        let stored = (0..rows).filter(|&row| slot_mapping[row] != -1).collect();
        let dtypes = layers.iter().map(|layer| layer.dtype(py)).collect::<PyResult<Vec<_>>>()?;
        let dtype = if dtypes.contains(&DType::F32) { DType::F32 } else { DType::Bf16 };
        let pass = if let Some(entries) = &context.block_tables {
            let entries = Integers::<i64>::read(entries, "block_tables", 2, "numbers of blocks")?;
            same_len(("block_tables", entries.shape[0]), ("the number of sequences", num_seqs))?;
            let (mut blocks, mut tables) = renumbered(&batch, &entries, num_blocks, block_size)?;
            // A row may be stored in a block that no sequence of the pass has.
            blocks.extend(places[0].iter().filter(|block| !blocks.contains(block)).collect::<BTreeSet<_>>());
            tables.num_blocks = blocks.len();
            let slots = renumbered_slots(&slot_mapping, &blocks, block_size)?;
            let read = |cache: &Py<PyAny>, name| -> PyResult<Vec<f32>> {
                Ok(Array::read_indexed(cache.bind(py), name, &blocks)?.values)
            };
            let before = layers.iter().map(|l| Ok((read(&l.k_cache, "k_cache")?, read(&l.v_cache, "v_cache")?)));
            let before = before.collect::<PyResult<_>>()?;
            Self::over(batch, tables, slots, heads, layers.len(), dtype, before)
        } else {
            let (tables, slots) = own_rows(context, &batch)?;
            Self::over(batch, tables, slots, heads, layers.len(), dtype, Vec::new())
        };
        Ok((pass, Stores { rows: stored, places }))
    }

    fn over(
        batch: Batch,
        tables: Tables,
        slots: Vec<i32>,
        heads: HeadLayout,
        num_layers: usize,
        dtype: DType,
        before: CacheContents,
    ) -> Self {
        let HeadLayout { num_kv_heads, head_dim, .. } = heads;
        let Tables { num_blocks, block_size, .. } = tables;
        let layers = vec![LayerCache::Full(KvHeads { num_kv_heads, head_dim }); num_layers];
        let spec = KvCacheSpec { num_blocks, block_size, dtype, layers };
        Self { batch, tables, slots, spec, before }
    }

    /// The pass in the terms of the device's operations.
    pub(super) fn context(&self) -> Context<'_> {
        Context {
            cu_seqlens_q: &self.batch.cu_seqlens_q,
            context_lens: &self.batch.context_lens,
            slot_mapping: &self.slots,
            block_tables: &self.tables.entries,
            table_stride: self.tables.stride,
        }
    }

    /// The device's cache as the pass finds it.
    pub(super) fn cache<B: Inspect>(&self, backend: &B) -> Result<B::KvCache> {
        let mut cache = backend.kv_cache(&self.spec)?;
        for (layer, (keys, values)) in self.before.iter().enumerate() {
            backend.write_kv_cache(&mut cache, layer, keys, values)?;
        }
        Ok(cache)
    }

    /// What the pass has stored of the rows that go back to the caller.
    pub(super) fn stored<B: Inspect>(&self, backend: &B, cache: &B::KvCache, stores: &Stores) -> CacheContents {
        let width = self.spec.heads(0).map_or(0, |heads| heads.size());
        let gather = |values: &[f32]| -> Vec<f32> {
            let slots = stores.rows.iter().filter_map(|&row| usize::try_from(self.slots[row]).ok());
            slots.flat_map(|slot| &values[slot * width..(slot + 1) * width]).copied().collect()
        };
        let layers = if stores.rows.is_empty() { 0 } else { self.spec.layers.len() };
        let read = |layer| {
            let (keys, values) = backend.read_kv_cache(cache, layer);
            (gather(&keys), gather(&values))
        };
        (0..layers).map(read).collect()
    }
}

impl Stores {
    /// Writes what the pass stored into the caller's caches.
    pub(super) fn write(
        &self,
        py: Python<'_>,
        layers: &[&CacheFace],
        stored: CacheContents,
        heads: HeadLayout,
    ) -> PyResult<()> {
        let shape = [heads.num_kv_heads, heads.head_dim];
        for (layer, (keys, values)) in layers.iter().zip(stored) {
            scatter(layer.k_cache.bind(py), "k_cache", self.places.clone(), keys, &shape)?;
            scatter(layer.v_cache.bind(py), "v_cache", self.places.clone(), values, &shape)?;
        }
        Ok(())
    }
}

fn given<'a, 'py>(value: Option<&'a Bound<'py, PyAny>>, name: &str) -> PyResult<&'a Bound<'py, PyAny>> {
    value.ok_or_else(|| PyValueError::new_err(format!("the context has no {name} (see nanovllm.utils.context)")))
}

/// Tables and slots of a pass whose sequences have no tokens but its rows.
fn own_rows(context: &ContextFace<'_>, batch: &Batch) -> PyResult<(Tables, Vec<i32>)> {
    if !context.is_prefill || context.block_tables.is_some() {
        return Err(PyValueError::new_err(if context.block_tables.is_some() {
            "the context has block_tables, but the modules have no k_cache and v_cache"
        } else {
            "the context has no block_tables to decode with"
        }));
    }
    let tables = consecutive(&batch.context_lens)?;
    let mut slots = Vec::with_capacity(batch.num_rows());
    for (seq, (rows, &tokens)) in batch.cu_seqlens_q.windows(2).zip(&batch.context_lens).enumerate() {
        if rows[1] - rows[0] != tokens {
            return Err(PyValueError::new_err(
                "a sequence has tokens before its rows, and the context no block_tables",
            ));
        }
        slots.extend((0..tokens as usize).map(|token| tables.slot(seq, token)));
    }
    Ok((tables, slots))
}

/// Slots among `blocks`, which the device's cache holds in this order.
fn renumbered_slots(slots: &[i64], blocks: &[i64], block_size: usize) -> PyResult<Vec<i32>> {
    let numbers: BTreeMap<i64, usize> = blocks.iter().copied().zip(0..).collect();
    let slot = |&slot: &i64| {
        let Ok(slot) = usize::try_from(slot) else { return Ok(-1) };
        let block = numbers.get(&((slot / block_size) as i64)).copied().unwrap_or(0);
        Ok(i32::try_from(block * block_size + slot % block_size)?)
    };
    slots.iter().map(slot).collect()
}

/// Blocks and block size, which all layers' caches must share.
fn common_blocks(py: Python<'_>, layers: &[&CacheFace], heads: HeadLayout) -> PyResult<(usize, usize)> {
    let mut common = None;
    for layer in layers {
        let blocks = cache_blocks(layer.k_cache.bind(py), layer.v_cache.bind(py), heads)?;
        if *common.get_or_insert(blocks) != blocks {
            return Err(PyValueError::new_err("the caches of all layers must have the same number and size of blocks"));
        }
    }
    Ok(common.unwrap_or((0, 1)))
}
