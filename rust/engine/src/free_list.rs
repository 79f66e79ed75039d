//! The queue of free blocks: a deque's order, with removal from the middle in constant time.

/// Stands for "no block" in a link.
const NIL: u32 = u32::MAX;

/// An intrusive doubly linked list over block ids. nano-vLLM's deque searches for a block that a prefix hit revives; here
/// it is unlinked in place, and the order of the others is the same.
#[derive(Debug)]
pub(crate) struct FreeList {
    next: Vec<u32>,
    prev: Vec<u32>,
    head: u32,
    tail: u32,
    len: usize,
}

impl FreeList {
    /// All of `0..num_blocks` in order; `None` when memory is short. `num_blocks` is below `u32::MAX`.
    pub(crate) fn full(num_blocks: usize) -> Option<Self> {
        let (mut next, mut prev) = (Vec::new(), Vec::new());
        next.try_reserve_exact(num_blocks).ok()?;
        prev.try_reserve_exact(num_blocks).ok()?;
        let mut list = Self { next, prev, head: NIL, tail: NIL, len: 0 };
        for id in 0..num_blocks as u32 {
            list.next.push(NIL);
            list.prev.push(NIL);
            list.push_back(id);
        }
        Some(list)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends a block that is not in the list.
    pub(crate) fn push_back(&mut self, id: u32) {
        self.next[id as usize] = NIL;
        self.prev[id as usize] = self.tail;
        match self.tail {
            NIL => self.head = id,
            tail => self.next[tail as usize] = id,
        }
        self.tail = id;
        self.len += 1;
    }

    pub(crate) fn pop_front(&mut self) -> Option<u32> {
        let id = self.head;
        if id == NIL {
            return None;
        }
        self.remove(id);
        Some(id)
    }

    /// Unlinks a block that is in the list.
    pub(crate) fn remove(&mut self, id: u32) {
        let (prev, next) = (self.prev[id as usize], self.next[id as usize]);
        match prev {
            NIL => self.head = next,
            prev => self.next[prev as usize] = next,
        }
        match next {
            NIL => self.tail = prev,
            next => self.prev[next as usize] = prev,
        }
        self.len -= 1;
    }

    /// The free blocks, next to be handed out first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let link = |id: u32| (id != NIL).then_some(id);
        std::iter::successors(link(self.head), move |&id| link(self.next[id as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn behaves_as_a_deque(size in 0usize..12, ops in proptest::collection::vec((0u8..3, 0usize..12), 0..200)) {
            let mut list = FreeList::full(size).unwrap();
            let mut deque: VecDeque<u32> = (0..size as u32).collect();
            let mut out = Vec::new();
            for (op, at) in ops {
                match op {
                    0 => {
                        let id = list.pop_front();
                        prop_assert_eq!(id, deque.pop_front());
                        out.extend(id);
                    }
                    1 if at < deque.len() => {
                        let id = deque.remove(at).unwrap();
                        list.remove(id);
                        out.push(id);
                    }
                    2 if at < out.len() => {
                        let id = out.swap_remove(at);
                        list.push_back(id);
                        deque.push_back(id);
                    }
                    _ => {}
                }
                prop_assert_eq!(list.len(), deque.len());
                prop_assert!(list.iter().eq(deque.iter().copied()));
            }
        }
    }
}
