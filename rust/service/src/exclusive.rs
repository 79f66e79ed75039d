//! A value that threads take turns with.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::ThreadId;

/// Why a turn cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} {reason}")]
pub struct Refusal {
    name: &'static str,
    reason: &'static str,
}

const REENTERED: &str = "is in the middle of a call on this thread (was this a signal handler?)";
const FORKED: &str = "does not survive fork(); make what uses it in the child";
const POISONED: &str = "is unusable: an earlier call failed inside it";

/// A value behind a lock. Two ways to wait forever are refusals instead: a signal handler that comes back to the value in the
/// middle of a call of its own thread, and a forked process, in which the thread that holds the lock does not exist.
pub struct Exclusive<T: ?Sized> {
    holder: Mutex<Option<ThreadId>>,
    process: u32,
    /// What the value is to whom reads an error.
    name: &'static str,
    value: Mutex<T>,
}

/// A thread's turn with the value of an [`Exclusive`].
pub struct Turn<'a, T: ?Sized> {
    holder: &'a Mutex<Option<ThreadId>>,
    value: MutexGuard<'a, T>,
}

impl<T> Exclusive<T> {
    /// A value that errors call `name`.
    pub fn new(name: &'static str, value: T) -> Self {
        Self { value: Mutex::new(value), holder: Mutex::new(None), process: std::process::id(), name }
    }
}

impl<T: ?Sized> Exclusive<T> {
    /// Whether it was made in this process, and not in one that has forked since.
    pub fn is_of_this_process(&self) -> bool {
        std::process::id() == self.process
    }

    /// Whether a turn can be waited for on this thread.
    ///
    /// # Errors
    /// A [`Refusal`] if that would be forever.
    pub fn check(&self) -> Result<(), Refusal> {
        if !self.is_of_this_process() {
            return Err(self.refusal(FORKED));
        }
        if *held_by(&self.holder) == Some(std::thread::current().id()) {
            return Err(self.refusal(REENTERED));
        }
        Ok(())
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// As [`check`](Self::check), and when an earlier turn ended in a panic.
    pub fn lock(&self) -> Result<Turn<'_, T>, Refusal> {
        self.check()?;
        let value = self.value.lock().map_err(|_| self.refusal(POISONED))?;
        Ok(self.turn(value))
    }

    /// A turn, if nobody has one now.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<Option<Turn<'_, T>>, Refusal> {
        self.check()?;
        match self.value.try_lock() {
            Ok(value) => Ok(Some(self.turn(value))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Poisoned(_)) => Err(self.refusal(POISONED)),
        }
    }

    /// The value if nobody has a turn now, whatever state an earlier failure left it in: for cleaning up.
    pub fn try_salvage(&self) -> Option<MutexGuard<'_, T>> {
        match self.value.try_lock() {
            _ if !self.is_of_this_process() => None,
            Ok(value) => Some(value),
            Err(TryLockError::Poisoned(value)) => Some(value.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn turn<'a>(&'a self, value: MutexGuard<'a, T>) -> Turn<'a, T> {
        *held_by(&self.holder) = Some(std::thread::current().id());
        Turn { holder: &self.holder, value }
    }

    fn refusal(&self, reason: &'static str) -> Refusal {
        Refusal { name: self.name, reason }
    }
}

impl<T: ?Sized> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        // Before the lock is free, or the next holder's name would be erased.
        *held_by(self.holder) = None;
    }
}

fn held_by(holder: &Mutex<Option<ThreadId>>) -> MutexGuard<'_, Option<ThreadId>> {
    holder.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_one_turn_at_a_time() {
        let value = Exclusive::new("the value", 1);
        let turn = value.lock().unwrap();
        assert!(value.lock().is_err_and(|refusal| refusal.to_string().contains("middle of a call")));
        std::thread::scope(|scope| {
            assert!(scope.spawn(|| value.try_lock().unwrap().is_none()).join().unwrap());
        });
        drop(turn);
        assert_eq!(*value.lock().unwrap(), 1);
    }

    #[test]
    fn a_turn_that_panicked_is_the_last() {
        let value = Exclusive::new("the value", 1);
        let panicked = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        let _turn = value.lock();
                        std::panic::resume_unwind(Box::new("on purpose"));
                    }))
                    .is_err()
                })
                .join()
                .unwrap()
        });
        assert!(panicked);
        assert!(value.lock().is_err_and(|refusal| refusal.to_string().contains("unusable")));
        assert!(value.try_salvage().is_some());
    }
}
