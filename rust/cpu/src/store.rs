//! Heads on their way into the cache: they are normed, rotated and stored, over the team.

use nanovllm_backend::{Context, HeadLayout, HeadNorm, HeadNorms, LayerCache, Rope};

use crate::claims::Claims;
use crate::kernels::generic::rows::{Norm, Rotation};
use crate::kernels::table::RowKernels;
use crate::kv_cache::{KvCache, LayerWriter};
use crate::team::Team;
use crate::tensor::{SharedMut, Tensor};

/// From this many rows on it pays to wake the team.
const TEAM_ROWS: usize = 3;
/// How many rows a thread takes at a time.
const CLAIM: usize = 4;

/// The norm of a head, its weight known to be as wide as a head.
#[derive(Clone, Copy)]
struct CheckedNorm<'a> {
    weight: Option<&'a [f32]>,
    eps: f32,
}

impl<'a> CheckedNorm<'a> {
    fn new(norm: HeadNorm<'a, Tensor>, head_dim: usize) -> Self {
        let weight = norm.weight.map(Tensor::as_slice);
        assert!(weight.is_none_or(|weight| weight.len() == head_dim), "weight of a norm of heads of {head_dim}");
        Self { weight, eps: norm.eps }
    }
}

/// One call of [`norm_rope_store`] as its threads see it.
struct Store<'a> {
    rows: &'a RowKernels,
    qkv: SharedMut,
    heads: &'a HeadLayout,
    /// The norms of query, key and value heads.
    norms: [Option<CheckedNorm<'a>>; 3],
    rope: Option<Rope<'a, Tensor>>,
    slots: &'a [i32],
    /// Where the layer stores; none for a layer that shares another's storage.
    cache: Option<LayerWriter<'a>>,
}

impl Store<'_> {
    /// # Safety
    /// No other thread works on this row or its slot meanwhile.
    unsafe fn row(&self, i: usize) {
        let HeadLayout { num_heads, num_kv_heads, .. } = *self.heads;
        let [q_norm, k_norm, v_norm] = self.norms;
        // SAFETY: this row is ours.
        let row = unsafe { self.qkv.row(i) };
        let (q, kv) = row.split_at_mut(self.heads.q_size());
        let rotation = self.rope.map(|Rope { table, positions }| Rotation {
            row: table.row(positions[i] as usize).as_ptr(),
            width: table.cols(),
        });
        // SAFETY: these are whole heads, the rotation is of an even width of at most theirs, and the row's slot is ours.
        unsafe {
            self.norm_rope(q, num_heads, q_norm, rotation);
            let Some(cache) = &self.cache else { return };
            let (k, v) = kv.split_at_mut(self.heads.kv_size());
            self.norm_rope(k, num_kv_heads, k_norm, rotation);
            self.norm_rope(v, num_kv_heads, v_norm, None);
            if let Ok(slot) = usize::try_from(self.slots[i]) {
                cache.store(slot, k, v);
            }
        }
    }

    /// # Safety
    /// `x` has `count` heads, and the rotation is of an even width of at most theirs.
    unsafe fn norm_rope(&self, x: &mut [f32], count: usize, norm: Option<CheckedNorm<'_>>, rotation: Option<Rotation>) {
        let norm = norm.map(|CheckedNorm { weight, eps }| Norm { weight: weight.map(<[f32]>::as_ptr), eps });
        if norm.is_some() || rotation.is_some() {
            // SAFETY: by this function's contract; the norm's weight is as wide as a head.
            unsafe { (self.rows.norm_rope)(x.as_mut_ptr(), count, self.heads.head_dim, norm, rotation) };
        }
    }
}

/// Norms and rotates heads and stores keys and values at the context's slots, as
/// [`Backend::norm_rope_store`](nanovllm_backend::Backend::norm_rope_store) says.
///
/// Queries, keys and values are updated in place. Slots other than -1 are distinct, as the block manager hands them out.
pub(crate) fn norm_rope_store(
    team: &Team,
    rows: &RowKernels,
    qkv: &mut Tensor,
    heads: &HeadLayout,
    norms: &HeadNorms<'_, Tensor>,
    rope: Option<Rope<'_, Tensor>>,
    cache: &mut KvCache,
    layer: usize,
    context: &Context<'_>,
) {
    let count = qkv.rows();
    cache.layer(layer).check_heads(heads);
    let stores = !matches!(cache.spec().layers[layer], LayerCache::Shared(_));
    let cols = if stores { heads.qkv_size() } else { heads.q_size() };
    assert_eq!(qkv.cols(), cols, "columns of qkv");
    assert_eq!(context.slot_mapping.len(), count, "slots of the rows");
    if let Some(Rope { table, positions }) = rope {
        let width = table.cols();
        let fits = width.is_multiple_of(2) && width <= heads.head_dim;
        assert!(fits, "{width} columns of the rotary table for heads of {}", heads.head_dim);
        assert_eq!(positions.len(), count, "positions of the rows");
    }
    let norms = [norms.q, norms.k, norms.v].map(|norm| norm.map(|norm| CheckedNorm::new(norm, heads.head_dim)));
    let cache = stores.then(|| cache.writer(layer));
    let store = Store { rows, qkv: qkv.shared(), heads, norms, rope, slots: context.slot_mapping, cache };
    if count < TEAM_ROWS {
        // SAFETY: nobody else is here.
        (0..count).for_each(|i| unsafe { store.row(i) });
        return;
    }
    let claims = Claims::new(count);
    team.run(|_| {
        while let Some(range) = claims.take(CLAIM) {
            // SAFETY: each row is claimed once, and rows have distinct slots.
            range.for_each(|i| unsafe { store.row(i) });
        }
    });
}

#[cfg(test)]
mod tests;
