//! A value that threads take turns with.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::ThreadId;

/// Why a turn cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {reason}")]
pub struct Refusal {
    name: &'static str,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("is in the middle of a call on this thread (was this a signal handler?)")]
    Reentered,
    #[error("does not survive fork(); make what uses it in the child")]
    Forked,
    /// With the panic's message.
    #[error("is unusable, make another: a bug in this library ended an earlier call in a panic: {0}")]
    Broken(Arc<str>),
}

impl Refusal {
    /// Whether this thread has a turn already.
    pub fn is_reentry(&self) -> bool {
        self.reason == Reason::Reentered
    }

    /// Whether an earlier turn ended in a panic.
    pub fn is_broken(&self) -> bool {
        matches!(self.reason, Reason::Broken(_))
    }
}

/// A value that threads take turns with, in the order they ask: who takes turn after turn starves nobody.
///
/// Two ways to wait forever are refusals instead: a signal handler that comes back to the value in the middle of a call of
/// its own thread, and a forked process, in which the thread that has the turn does not exist.
pub struct Exclusive<T: ?Sized> {
    queue: Mutex<Queue>,
    /// Rung when a turn ends.
    ended: Condvar,
    process: u32,
    /// What an error calls the value.
    name: &'static str,
    /// Locked only by the thread that has the turn.
    value: Mutex<T>,
}

/// Every thread that asks draws a ticket, and tickets are served in order. The turn is free when the ticket to be served is
/// the one that will be drawn next.
#[derive(Debug, Default)]
struct Queue {
    next: u64,
    serving: u64,
    holder: Option<ThreadId>,
    /// The message of the panic that the value is unusable since.
    broken: Option<Arc<str>>,
}

/// A thread's turn with the value of an [`Exclusive`].
pub struct Turn<'a, T: ?Sized> {
    of: &'a Exclusive<T>,
    value: MutexGuard<'a, T>,
}

impl<T> Exclusive<T> {
    /// A value that errors call `name`.
    pub fn new(name: &'static str, value: T) -> Self {
        let process = std::process::id();
        Self { queue: Mutex::default(), ended: Condvar::new(), process, name, value: Mutex::new(value) }
    }
}

impl<T: ?Sized> Exclusive<T> {
    /// Whether it was made in this process, and not in one that has forked since.
    pub fn is_of_this_process(&self) -> bool {
        std::process::id() == self.process
    }

    /// Checks whether this thread may wait for a turn.
    ///
    /// # Errors
    /// A [`Refusal`] if it would wait for ever, or when an earlier turn ended in a panic.
    pub fn check(&self) -> Result<(), Refusal> {
        self.checked_queue().map(|_| ())
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// The same as [`check`](Self::check)'s.
    pub fn lock(&self) -> Result<Turn<'_, T>, Refusal> {
        let mut queue = self.checked_queue()?;
        let ticket = queue.next;
        queue.next += 1;
        while queue.serving != ticket {
            queue = self.ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(panic) = queue.broken.clone() {
            queue.serving += 1;
            self.ended.notify_all();
            return Err(self.refusal(Reason::Broken(panic)));
        }
        Ok(self.begin(queue))
    }

    /// A turn, if nobody has one or waits for one now.
    ///
    /// # Errors
    /// The same as [`check`](Self::check)'s.
    pub fn try_lock(&self) -> Result<Option<Turn<'_, T>>, Refusal> {
        let mut queue = self.checked_queue()?;
        if queue.serving != queue.next {
            return Ok(None);
        }
        queue.next += 1;
        Ok(Some(self.begin(queue)))
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

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn checked_queue(&self) -> Result<MutexGuard<'_, Queue>, Refusal> {
        // This is asked first, as the lock may be held by a thread that does not exist in a forked process.
        if !self.is_of_this_process() {
            return Err(self.refusal(Reason::Forked));
        }
        let queue = self.queue();
        if queue.holder == Some(std::thread::current().id()) {
            return Err(self.refusal(Reason::Reentered));
        }
        if let Some(panic) = queue.broken.clone() {
            return Err(self.refusal(Reason::Broken(panic)));
        }
        Ok(queue)
    }

    /// Begins the turn of the thread whose ticket is being served.
    fn begin(&self, mut queue: MutexGuard<'_, Queue>) -> Turn<'_, T> {
        queue.holder = Some(std::thread::current().id());
        drop(queue);
        Turn { of: self, value: self.value.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    fn refusal(&self, reason: Reason) -> Refusal {
        Refusal { name: self.name, reason }
    }
}

impl<T: ?Sized> Turn<'_, T> {
    /// Marks the value as broken by a panic of this message: every later turn is refused with it.
    pub fn break_it(&mut self, panic: &Arc<str>) {
        self.of.queue().broken.get_or_insert_with(|| panic.clone());
    }

    /// Runs `work` on the value. If it panics, the panic goes on and every later turn is refused with its message.
    pub fn run<R>(&mut self, work: impl FnOnce(&mut T) -> R) -> R {
        // Nobody looks again at what a panic leaves behind, so it is safe to unwind.
        catch_unwind(AssertUnwindSafe(|| work(&mut self.value))).unwrap_or_else(|panic| {
            self.break_it(&text_of(&*panic));
            resume_unwind(panic)
        })
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
        let mut queue = self.of.queue();
        if std::thread::panicking() {
            queue.broken.get_or_insert_with(|| "its message is not known".into());
        }
        queue.holder = None;
        queue.serving += 1;
        drop(queue);
        self.of.ended.notify_all();
    }
}

/// The message of a panic.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> Arc<str> {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a word").into()
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
    fn who_asks_again_comes_after_who_waits() {
        let value = Exclusive::new("the value", 0);
        for i in 1..=50 {
            std::thread::scope(|scope| {
                let turn = value.lock().unwrap();
                scope.spawn(|| *value.lock().unwrap() = i);
                let is_waiting = || {
                    let queue = value.queue();
                    queue.next > queue.serving + 1
                };
                while !is_waiting() {
                    std::thread::yield_now();
                }
                drop(turn);
                assert_eq!(*value.lock().unwrap(), i);
            });
        }
    }

    #[test]
    fn a_panic_is_what_every_later_turn_is_told() {
        let value = Exclusive::new("the value", 1);
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            value.lock().unwrap().run(|_| std::panic::resume_unwind(Box::new("index out of bounds")));
        }));
        assert!(panicked.is_err());
        for refusal in [value.lock().err(), value.try_lock().err(), value.check().err()] {
            let text = refusal.unwrap().to_string();
            assert!(text.contains("the value is unusable") && text.contains("index out of bounds"), "{text}");
        }
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
