//! The CPU device: instruction sets as values, packed weights, a spinning thread team, paged attention.
