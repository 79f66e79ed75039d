//! `Attention` and `store_kvcache`: attention over plain arrays, or over paged caches that are arrays of the caller's.

use std::collections::{BTreeMap, HashSet};

use nanovllm_backend::{DType, HeadLayout, Inspect};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arguments::count;
use crate::by_hand::arrays::{Array, Integers, Kind, scatter, shape_of};
use crate::by_hand::layers::paged::{self, Batch, Tables};
use crate::device::{self, Device, on_device};
use crate::errors::backend_error;
use crate::guarded::Turns;

/// Causal attention of grouped query heads.
#[pyclass(frozen, module = "nanovllm._core")]
pub(crate) struct Attention {
    device: Device,
    heads: HeadLayout,
    /// Products of queries and keys are multiplied by it.
    scale: f64,
}

#[pymethods]
impl Attention {
    #[new]
    #[pyo3(signature = (num_heads, head_dim, scale, num_kv_heads, *, device))]
    fn new(
        num_heads: &Bound<'_, PyAny>,
        head_dim: &Bound<'_, PyAny>,
        scale: f64,
        num_kv_heads: &Bound<'_, PyAny>,
        device: &str,
    ) -> PyResult<Self> {
        let heads = HeadLayout {
            num_heads: count(num_heads, "num_heads")?,
            num_kv_heads: count(num_kv_heads, "num_kv_heads")?,
            head_dim: count(head_dim, "head_dim")?,
        };
        check_heads(heads)?;
        if !scale.is_finite() {
            return Err(PyValueError::new_err(format!("scale must be finite, got {scale}")));
        }
        Ok(Self { device: device::named(device)?, heads, scale })
    }

    /// Ragged sequences: row `cu_seqlens_q[s]` of `q`, `[n, num_heads, head_dim]`, is the first of sequence `s`, and row
    /// `cu_seqlens_k[s]` of `k` and `v`, `[m, num_kv_heads, head_dim]`. The last query of a sequence sees all its keys, each
    /// one before it one less.
    fn varlen<'py>(
        &self,
        py: Python<'py>,
        q: &Bound<'py, PyAny>,
        k: &Bound<'py, PyAny>,
        v: &Bound<'py, PyAny>,
        cu_seqlens_q: &Bound<'py, PyAny>,
        cu_seqlens_k: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (q, k, v) = (self.queries(q)?, self.keys(k, "k")?, self.keys(v, "v")?);
        v.expect_shape("v", &[Some(k.shape[0]), None, None])?;
        let cu_seqlens_q = offsets(cu_seqlens_q, "cu_seqlens_q", q.shape[0])?;
        let cu_seqlens_k = offsets(cu_seqlens_k, "cu_seqlens_k", k.shape[0])?;
        same_len(("cu_seqlens_k", cu_seqlens_k.len()), ("cu_seqlens_q", cu_seqlens_q.len()))?;
        let context_lens: Vec<u32> = cu_seqlens_k.windows(2).map(|w| w[1] - w[0]).collect();
        let batch = Batch::new(&cu_seqlens_q, &context_lens);
        let tables = consecutive(&batch.context_lens)?;
        let mut slots = vec![-1; k.shape[0]];
        for (i, (&seq, &tokens)) in batch.seqs.iter().zip(&batch.context_lens).enumerate() {
            let first = cu_seqlens_k[seq] as usize;
            for token in 0..tokens as usize {
                slots[first + token] = tables.slot(i, token);
            }
        }
        self.attend(py, &q, &batch, &tables, &k, &v, Some(&slots))
    }

    /// As `varlen`, keys and values lying in paged caches, `[num_blocks, block_size, num_kv_heads, head_dim]`: sequence `s`
    /// has `context_lens[s]` tokens, in the blocks that row `s` of `block_tables` names in order.
    fn paged<'py>(
        &self,
        py: Python<'py>,
        q: &Bound<'py, PyAny>,
        k_cache: &Bound<'py, PyAny>,
        v_cache: &Bound<'py, PyAny>,
        cu_seqlens_q: &Bound<'py, PyAny>,
        context_lens: &Bound<'py, PyAny>,
        block_tables: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let q = self.queries(q)?;
        let (num_blocks, block_size) = cache_blocks(k_cache, v_cache, self.heads)?;
        let cu_seqlens_q = offsets(cu_seqlens_q, "cu_seqlens_q", q.shape[0])?;
        let context_lens = Integers::<u32>::read(context_lens, "context_lens", 1, "numbers of tokens")?.values;
        same_len(("context_lens", context_lens.len() + 1), ("cu_seqlens_q", cu_seqlens_q.len()))?;
        let tables = Integers::<i64>::read(block_tables, "block_tables", 2, "numbers of blocks")?;
        same_len(("block_tables", tables.shape[0]), ("context_lens", context_lens.len()))?;
        let batch = Batch::new(&cu_seqlens_q, &context_lens);
        let (blocks, tables) = renumbered(&batch, &tables, num_blocks, block_size)?;
        let gather = |cache, name| Array::read_indexed(cache, name, &blocks);
        let (k, v) = (gather(k_cache, "k_cache")?, gather(v_cache, "v_cache")?);
        self.attend(py, &q, &batch, &tables, &k, &v, None)
    }
}

impl Attention {
    /// `[n, num_heads, head_dim]`.
    fn queries(&self, value: &Bound<'_, PyAny>) -> PyResult<Array> {
        let q = Array::read(value, "q")?;
        q.expect_shape("q", &[None, Some(self.heads.num_heads), Some(self.heads.head_dim)])?;
        Ok(q)
    }

    /// `[m, num_kv_heads, head_dim]`.
    fn keys(&self, value: &Bound<'_, PyAny>, name: &str) -> PyResult<Array> {
        let keys = Array::read(value, name)?;
        keys.expect_shape(name, &[None, Some(self.heads.num_kv_heads), Some(self.heads.head_dim)])?;
        Ok(keys)
    }

    /// Attends over a cache made of `k` and `v`: rows that go to `slots`, or the blocks themselves.
    fn attend<'py>(
        &self,
        py: Python<'py>,
        q: &Array,
        batch: &Batch,
        tables: &Tables,
        k: &Array,
        v: &Array,
        slots: Option<&[i32]>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if batch.is_empty() {
            return q.kind.floats(py, vec![0.0; q.values.len()], &q.shape);
        }
        let (heads, dtype, scale) = (self.heads, cache_dtype(&k.kind, &v.kind), self.scale);
        let (queries, keys, values) = (&q.values, &k.values, &v.values);
        let out = on_device!(&self.device, device => device.with(py, |backend| -> nanovllm_backend::Result<_> {
            let mut cache = paged::cache(backend, heads, tables, dtype)?;
            match slots {
                Some(slots) => paged::store(backend, heads, &mut cache, keys, values, slots)?,
                None => backend.write_kv_cache(&mut cache, 0, keys, values)?,
            }
            batch.attend(backend, heads, scale, &cache, tables, queries)
        })?);
        q.kind.floats(py, out.map_err(|error| backend_error(&error))?, &q.shape)
    }
}

/// Stores rows of keys and values, `[n, num_kv_heads, head_dim]`, into the caller's paged caches, `[num_blocks, block_size,
/// num_kv_heads, head_dim]`: row `i` at slot `slot_mapping[i]`, which is `block * block_size + offset`, or nowhere if it is
/// -1.
#[pyfunction]
#[pyo3(signature = (key, value, k_cache, v_cache, slot_mapping, *, device))]
pub(crate) fn store_kvcache(
    py: Python<'_>,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
    k_cache: &Bound<'_, PyAny>,
    v_cache: &Bound<'_, PyAny>,
    slot_mapping: &Bound<'_, PyAny>,
    device: &str,
) -> PyResult<()> {
    let (key, value) = (Array::read(key, "key")?, Array::read(value, "value")?);
    key.expect_shape("key", &[None, None, None])?;
    value.expect_shape("value", &key.shape.iter().copied().map(Some).collect::<Vec<_>>())?;
    let (count, num_kv_heads, head_dim) = (key.shape[0], key.shape[1], key.shape[2]);
    let heads = HeadLayout { num_heads: num_kv_heads, num_kv_heads, head_dim };
    check_heads(heads)?;
    let (num_blocks, block_size) = cache_blocks(k_cache, v_cache, heads)?;
    let slot_mapping = Integers::<i64>::read(slot_mapping, "slot_mapping", 1, "slots")?.values;
    same_len(("slot_mapping", slot_mapping.len()), ("key", count))?;
    let (stored, indices) = places(&slot_mapping, num_blocks, block_size)?;
    if stored == 0 {
        return Ok(());
    }
    // Through a cache of the device, one slot after the other: what is stored is what the device would hold.
    let tables = consecutive(&[u32::try_from(stored)?])?;
    let mut next = 0..stored;
    let slots: Vec<i32> = slot_mapping
        .iter()
        .map(|&slot| if slot < 0 { None } else { next.next() }.map_or(-1, |i| tables.slot(0, i)))
        .collect();
    let dtype = cache_dtype(&Kind::of(k_cache, "k_cache")?, &Kind::of(v_cache, "v_cache")?);
    let (mut keys, mut values) = on_device!(device::named(device)?, device => {
        device.with(py, |backend| -> nanovllm_backend::Result<_> {
            let mut cache = paged::cache(backend, heads, &tables, dtype)?;
            paged::store(backend, heads, &mut cache, &key.values, &value.values, &slots)?;
            Ok(backend.read_kv_cache(&cache, 0))
        })?
    })
    .map_err(|error| backend_error(&error))?;
    keys.truncate(stored * heads.kv_size());
    values.truncate(stored * heads.kv_size());
    scatter(k_cache, "k_cache", indices.clone(), keys, &key.shape[1..])?;
    scatter(v_cache, "v_cache", indices, values, &key.shape[1..])
}

pub(crate) fn check_heads(HeadLayout { num_heads, num_kv_heads, head_dim }: HeadLayout) -> PyResult<()> {
    let error = |text: String| Err(PyValueError::new_err(text));
    if num_heads == 0 || num_kv_heads == 0 || !num_heads.is_multiple_of(num_kv_heads) {
        return error(format!("num_kv_heads must divide num_heads, got {num_kv_heads} and {num_heads}"));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return error(format!("head_dim must be even and positive, got {head_dim}"));
    }
    // Keys and values are no wider than queries, so that a row of all three can be counted.
    if head_dim.checked_mul(3 * size_of::<f32>()).and_then(|bytes| bytes.checked_mul(num_heads)).is_none() {
        return error(format!("{num_heads} heads of {head_dim} are too large"));
    }
    Ok(())
}

/// The element type of a device's cache for keys and values of these kinds: as they are, or wider.
pub(crate) fn cache_dtype(keys: &Kind, values: &Kind) -> DType {
    if keys.is_bf16() && values.is_bf16() { DType::Bf16 } else { DType::F32 }
}

/// Blocks and block size of a pair of caches.
pub(crate) fn cache_blocks(
    k_cache: &Bound<'_, PyAny>,
    v_cache: &Bound<'_, PyAny>,
    heads: HeadLayout,
) -> PyResult<(usize, usize)> {
    let (shape, other) = (shape_of(k_cache, "k_cache")?, shape_of(v_cache, "v_cache")?);
    let HeadLayout { num_kv_heads, head_dim, .. } = heads;
    match shape[..] {
        [num_blocks, block_size, heads, dim]
            if (heads, dim) == (num_kv_heads, head_dim) && block_size > 0 && shape == other =>
        {
            Ok((num_blocks, block_size))
        }
        _ => Err(PyValueError::new_err(format!(
            "k_cache and v_cache must have shape [num_blocks, block_size, {num_kv_heads}, {head_dim}], got {shape:?} and {other:?}"
        ))),
    }
}

/// Row offsets of ragged sequences: from 0 to `rows`, never falling.
pub(crate) fn offsets(value: &Bound<'_, PyAny>, name: &str, rows: usize) -> PyResult<Vec<u32>> {
    let offsets = Integers::<u32>::read(value, name, 1, "row offsets")?.values;
    let spans = offsets.first() == Some(&0) && offsets.last().is_some_and(|&last| last as usize == rows);
    if !spans || !offsets.is_sorted() {
        return Err(PyValueError::new_err(format!("{name} must rise from 0 to the {rows} rows, got {offsets:?}")));
    }
    Ok(offsets)
}

pub(crate) fn same_len((name, got): (&str, usize), (other, expected): (&str, usize)) -> PyResult<()> {
    if got != expected {
        return Err(PyValueError::new_err(format!("{name} has {got} entries, where {other} asks for {expected}")));
    }
    Ok(())
}

/// [`Tables::consecutive`], whose slots must fit their type.
pub(crate) fn consecutive(context_lens: &[u32]) -> PyResult<Tables> {
    Tables::consecutive(context_lens)
        .ok_or_else(|| PyValueError::new_err(format!("{} sequences have too many tokens", context_lens.len())))
}

/// The blocks that a batch refers to, and its tables with these numbered from 0.
pub(crate) fn renumbered(
    batch: &Batch,
    tables: &Integers<i64>,
    num_blocks: usize,
    block_size: usize,
) -> PyResult<(Vec<i64>, Tables)> {
    let width = tables.shape[1];
    let mut rows = Vec::with_capacity(batch.seqs.len());
    for (&seq, &tokens) in batch.seqs.iter().zip(&batch.context_lens) {
        let needed = (tokens as usize).div_ceil(block_size);
        if needed > width {
            let text = format!("sequence {seq} needs {needed} blocks, block_tables has {width} a sequence");
            return Err(PyValueError::new_err(text));
        }
        let row = &tables.values[seq * width..][..needed];
        if let Some((i, block)) = row.iter().enumerate().find(|(_, block)| !(0..num_blocks as i64).contains(block)) {
            let text = format!("block_tables[{seq}, {i}] is {block}, the cache has {num_blocks} blocks");
            return Err(PyValueError::new_err(text));
        }
        rows.push(row);
    }
    let mut numbers: BTreeMap<i64, i32> = rows.iter().copied().flatten().map(|&block| (block, 0)).collect();
    for (next, number) in numbers.values_mut().enumerate() {
        *number = i32::try_from(next)?;
    }
    let rows: Vec<Vec<i32>> = rows.iter().map(|row| row.iter().map(|block| numbers[block]).collect()).collect();
    Ok((numbers.keys().copied().collect(), Tables::new(numbers.len(), block_size, &rows)))
}

/// How many rows are stored, and the blocks and offsets of their slots.
pub(crate) fn places(slot_mapping: &[i64], num_blocks: usize, block_size: usize) -> PyResult<(usize, [Vec<i64>; 2])> {
    let mut seen = HashSet::new();
    let (mut blocks, mut offsets) = (Vec::new(), Vec::new());
    for (i, &slot) in slot_mapping.iter().enumerate().filter(|&(_, &slot)| slot != -1) {
        let block_and_offset = usize::try_from(slot).map(|slot| (slot / block_size, slot % block_size));
        let error = match block_and_offset {
            Ok((block, offset)) if block < num_blocks => {
                blocks.push(block as i64);
                offsets.push(offset as i64);
                if seen.insert(slot) {
                    continue;
                }
                "which another row has too".to_owned()
            }
            _ => format!("the cache has {num_blocks} blocks of {block_size}"),
        };
        return Err(PyValueError::new_err(format!("slot_mapping[{i}] is {slot}, {error}")));
    }
    Ok((blocks.len(), [blocks, offsets]))
}
