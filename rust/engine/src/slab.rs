//! Storage of live sequences. A sequence keeps its place for as long as it lives, so the scheduler's queues hold keys of one
//! word instead of sequences; places of sequences that have left are used again.

use crate::sequence::Sequence;
use std::ops::{Index, IndexMut};

/// Refers to a live sequence.
pub(crate) type Key = usize;

/// Sequences by key. A free place holds [`Sequence::vacant`], which owns no heap memory.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    entries: Vec<Sequence>,
    vacant: Vec<Key>,
}

impl Slab {
    pub(crate) fn insert(&mut self, seq: Sequence) -> Key {
        if let Some(key) = self.vacant.pop() {
            self.entries[key] = seq;
            return key;
        }
        self.entries.push(seq);
        self.entries.len() - 1
    }

    /// Takes a live sequence out; its key may be handed out again.
    pub(crate) fn remove(&mut self, key: Key) -> Sequence {
        self.vacant.push(key);
        std::mem::replace(&mut self.entries[key], Sequence::vacant())
    }
}

impl Index<Key> for Slab {
    type Output = Sequence;
    fn index(&self, key: Key) -> &Sequence {
        &self.entries[key]
    }
}

impl IndexMut<Key> for Slab {
    fn index_mut(&mut self, key: Key) -> &mut Sequence {
        &mut self.entries[key]
    }
}
