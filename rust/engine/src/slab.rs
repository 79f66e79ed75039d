//! Storage of live sequences: stable indices for the queues, slots reused.

use crate::Sequence;
use std::ops::{Index, IndexMut};

/// Index of a live sequence.
pub(crate) type Slot = usize;

/// Sequences by slot. An empty slot holds a vacant sequence, which owns no heap memory.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    entries: Vec<Sequence>,
    vacant: Vec<Slot>,
}

impl Slab {
    pub(crate) fn insert(&mut self, seq: Sequence) -> Slot {
        if let Some(slot) = self.vacant.pop() {
            self.entries[slot] = seq;
            return slot;
        }
        self.entries.push(seq);
        self.entries.len() - 1
    }

    /// Takes a live sequence out; its slot may be handed out again.
    pub(crate) fn remove(&mut self, slot: Slot) -> Sequence {
        self.vacant.push(slot);
        std::mem::replace(&mut self.entries[slot], Sequence::vacant())
    }
}

impl Index<Slot> for Slab {
    type Output = Sequence;
    fn index(&self, slot: Slot) -> &Sequence {
        &self.entries[slot]
    }
}

impl IndexMut<Slot> for Slab {
    fn index_mut(&mut self, slot: Slot) -> &mut Sequence {
        &mut self.entries[slot]
    }
}
