//! A team of threads that work on one call together.
//!
//! The caller is a member itself, of rank 0. A call is one broadcast (every member runs the same closure) and one wait for all.
//! A small layer takes microseconds, less than it takes to wake a sleeping thread. So members wait for the next call by polling;
//! after some microseconds they offer their core to others between polls, and after about a millisecond they sleep.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use nanovllm_backend::{Error, Result};

/// How long an idle member polls before it sleeps.
const SPIN: Duration = Duration::from_millis(1);
/// How often a waiting member polls before it starts to yield its time slice: about ten microseconds. Within a step nobody waits
/// longer unless the one waited for has lost its core, and then it may need this one.
const POLLS: u32 = 512;

/// Keeps a counter on a cache line of its own (two, as x86 prefetches lines in pairs).
#[repr(align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// A closure whose type is erased: its address, and a function that knows its type.
struct Closure {
    data: *const (),
    call: unsafe fn(*const (), &Member<'_>),
}

struct Shared {
    /// How many calls have begun; a member takes part when it sees this advance.
    epoch: Line<AtomicU64>,
    /// Arrivals at barriers since the team was made. Divided by the team's size, the count gives the round.
    arrivals: Line<AtomicU64>,
    /// How often members have left a call, counted apart from `arrivals`: a member that panicked skips barriers but always
    /// leaves, so this count alone tells the caller that nobody uses the closure any more.
    departures: Line<AtomicU64>,
    closure: AtomicPtr<Closure>,
    parked: Vec<Line<AtomicBool>>,
    size: usize,
    /// Set once a member has panicked: barriers would wait for it in vain.
    poisoned: AtomicBool,
    shutdown: AtomicBool,
}

/// A fixed set of threads; dropping it joins them.
pub struct Team {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    handles: Vec<JoinHandle<()>>,
    /// Held during a call, of which there is one at a time.
    calls: Mutex<()>,
    /// The process that has the threads: a forked child has the team without them.
    process: u32,
}

/// A thread of the team, during a call.
pub struct Member<'a> {
    shared: &'a Shared,
    /// Its number, 0 for the thread that called.
    pub rank: usize,
}

impl Team {
    /// A team of `size` threads, the caller counted.
    ///
    /// # Errors
    /// [`Error::Option`] when `size` is 0 or over 1024, or the system refuses a thread.
    pub fn new(size: usize) -> Result<Self> {
        if size == 0 || size > 1024 {
            return Err(Error::Option(format!("num_threads must be between 1 and 1024, got {size}")));
        }
        let shared = Arc::new(Shared {
            epoch: Line(AtomicU64::new(0)),
            arrivals: Line(AtomicU64::new(0)),
            departures: Line(AtomicU64::new(0)),
            closure: AtomicPtr::new(std::ptr::null_mut()),
            parked: (1..size).map(|_| Line(AtomicBool::new(false))).collect(),
            size,
            poisoned: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
        });
        let mut team = Self {
            shared,
            threads: Vec::new(),
            handles: Vec::new(),
            calls: Mutex::new(()),
            process: std::process::id(),
        };
        for rank in 1..size {
            let shared = Arc::clone(&team.shared);
            let handle = std::thread::Builder::new()
                .name(format!("nanovllm-{rank}"))
                .spawn(move || shared.work(rank))
                .map_err(|e| Error::Option(format!("cannot start thread {rank} of num_threads={size}: {e}")))?;
            team.threads.push(handle.thread().clone());
            team.handles.push(handle);
        }
        Ok(team)
    }

    /// Threads, the caller counted.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Runs `f` once on every member and returns when all have finished. Not to be called from within `f`.
    ///
    /// # Panics
    /// When `f` panics on any member; the team is unusable afterwards.
    pub fn run<F: Fn(&Member<'_>) + Sync>(&self, f: F) {
        let me = Member { shared: &self.shared, rank: 0 };
        if self.shared.size == 1 {
            return f(&me);
        }
        let _one_at_a_time = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!self.shared.poisoned.load(Ordering::Acquire), "a thread of the team panicked earlier");
        let mut closure = Closure { data: (&raw const f).cast(), call: call::<F> };
        self.shared.closure.store(&raw mut closure, Ordering::Relaxed);
        // SeqCst on both sides: a member that parks and a caller that broadcasts must not miss each other.
        self.shared.epoch.0.fetch_add(1, Ordering::SeqCst);
        for (parked, thread) in self.shared.parked.iter().zip(&self.threads) {
            if parked.0.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let result = catch_unwind(AssertUnwindSafe(|| f(&me)));
        if result.is_err() {
            self.shared.poisoned.store(true, Ordering::Release);
        }
        // Even after a panic: the others may still use `f`, which lives on this stack.
        self.shared.wait_for_all(&self.shared.departures, || false);
        match result {
            Err(panic) => resume_unwind(panic),
            Ok(()) => assert!(!self.shared.poisoned.load(Ordering::Acquire), "a thread of the team panicked"),
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            self.handles.drain(..).for_each(std::mem::forget);
            return;
        }
        self.shared.shutdown.store(true, Ordering::SeqCst);
        self.shared.epoch.0.fetch_add(1, Ordering::SeqCst);
        for thread in &self.threads {
            thread.unpark();
        }
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

impl Member<'_> {
    /// Threads in the team.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Waits until every member has arrived; writes before it are seen by all after it.
    pub fn barrier(&self) {
        if self.shared.size > 1 {
            // Nobody waits for a member that panicked.
            self.shared.wait_for_all(&self.shared.arrivals, || self.shared.poisoned.load(Ordering::Relaxed));
            assert!(!self.shared.poisoned.load(Ordering::Acquire), "another thread of the team panicked");
        }
    }

    /// The contiguous part of `0..n` that is this member's if all get about as much.
    pub fn share(&self, n: usize) -> std::ops::Range<usize> {
        n * self.rank / self.size()..n * (self.rank + 1) / self.size()
    }
}

impl Shared {
    fn work(&self, rank: usize) {
        let mut seen = 0;
        loop {
            seen = self.next_call(rank, seen);
            if self.shutdown.load(Ordering::Acquire) {
                return;
            }
            let closure = self.closure.load(Ordering::Relaxed);
            let member = Member { shared: self, rank };
            // SAFETY: `run` stored the closure before it advanced the epoch we acquired, and keeps it alive until
            // this member counts its departure below.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { ((*closure).call)((*closure).data, &member) }));
            if result.is_err() {
                self.poisoned.store(true, Ordering::Release);
            }
            self.departures.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Waits until a call after number `seen` begins, and returns its number.
    fn next_call(&self, rank: usize, seen: u64) -> u64 {
        let epoch = || Some(self.epoch.0.load(Ordering::Acquire)).filter(|&epoch| epoch != seen);
        for _ in 0..POLLS {
            if let Some(epoch) = epoch() {
                return epoch;
            }
            std::hint::spin_loop();
        }
        let idle_since = Instant::now();
        while idle_since.elapsed() < SPIN {
            if let Some(epoch) = epoch() {
                return epoch;
            }
            std::thread::yield_now();
        }
        let parked = &self.parked[rank - 1].0;
        parked.store(true, Ordering::SeqCst);
        let epoch = loop {
            let epoch = self.epoch.0.load(Ordering::SeqCst);
            if epoch != seen {
                break epoch;
            }
            std::thread::park();
        };
        parked.store(false, Ordering::SeqCst);
        epoch
    }

    /// Adds one to `count` and waits until every member has done so in this round, or `give_up` says so.
    fn wait_for_all(&self, count: &Line<AtomicU64>, give_up: impl Fn() -> bool) {
        let size = self.size as u64;
        let ticket = count.0.fetch_add(1, Ordering::AcqRel);
        let all_here = (ticket / size + 1) * size;
        let mut polls = 0u32;
        while count.0.load(Ordering::Acquire) < all_here && !give_up() {
            if polls < POLLS {
                polls += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// # Safety
/// `data` points to a live `F`.
unsafe fn call<F: Fn(&Member<'_>) + Sync>(data: *const (), member: &Member<'_>) {
    // SAFETY: by this function's contract.
    unsafe { (*data.cast::<F>())(member) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn every_member_runs_every_call_and_barriers_order_them() {
        for size in [1, 2, 3, 5] {
            let team = Team::new(size).expect("threads");
            let sums: Vec<AtomicUsize> = (0..size).map(|_| AtomicUsize::new(0)).collect();
            for round in 0..200 {
                team.run(|me| {
                    sums[me.rank].fetch_add(1, Ordering::Relaxed);
                    me.barrier();
                    // After the barrier every member sees every addition of this round.
                    assert!(sums.iter().all(|s| s.load(Ordering::Relaxed) == round + 1));
                    me.barrier();
                });
            }
        }
    }

    #[test]
    fn a_parked_team_wakes() {
        let team = Team::new(2).expect("threads");
        for _ in 0..3 {
            let ran = AtomicUsize::new(0);
            team.run(|_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.load(Ordering::Relaxed), 2);
            std::thread::sleep(SPIN * 5);
        }
    }

    #[test]
    fn a_panic_on_any_member_reaches_the_caller() {
        for guilty in 0..2 {
            let team = Team::new(2).expect("threads");
            let result = catch_unwind(AssertUnwindSafe(|| {
                team.run(|me| {
                    assert_ne!(me.rank, guilty);
                    me.barrier();
                });
            }));
            assert!(result.is_err());
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert!(Team::new(0).is_err());
        assert!(Team::new(1025).is_err());
    }
}
