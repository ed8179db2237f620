//! How a thread that waits for something that another one puts behind a lock learns of it.
//!
//! Adds of many threads wake one thread after the other, of which each goes on only when the one before it sleeps. Linux
//! takes whoever is woken through a condition variable for work that another core can do, and leaves it where it was last:
//! behind the server, for as long as that is busy, while the core of the others has nothing to do. Whoever is woken
//! through a pipe it takes for the one that goes on with the work of whoever wrote to it, on the same core.

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How many threads may have a pipe, which takes two file descriptors. The others have a condition variable.
const PIPES: usize = 64;
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Of one thread.
#[derive(Default)]
pub(crate) struct Bell {
    condvar: Condvar,
    /// Made by that thread before it first waits for its turn.
    pipe: OnceLock<Option<Pipe>>,
}

struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Pipe {
    fn open() -> Option<Self> {
        if OPEN.fetch_add(1, Ordering::Relaxed) < PIPES
            && let Ok((reader, writer)) = io::pipe()
        {
            return Some(Self { reader, writer });
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bell {
    /// Waits as long as `is_pending` says so, which notes that the bell must be rung; with a limit for so long at most. A pipe
    /// is made for who waits `in_turn` with others.
    pub(crate) fn wait<'a, T>(
        &self,
        mutex: &'a Mutex<T>,
        limit: Option<Duration>,
        in_turn: bool,
        mut is_pending: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let lock = || mutex.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limit) = limit {
            let waited = self.condvar.wait_timeout_while(lock(), limit, is_pending);
            return waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let pipe = if in_turn {
            self.pipe.get_or_init(Pipe::open).as_ref()
        } else {
            self.pipe.get().and_then(Option::as_ref)
        };
        let Some(pipe) = pipe else {
            let waited = self.condvar.wait_while(lock(), is_pending);
            return waited.unwrap_or_else(PoisonError::into_inner);
        };
        loop {
            let mut guarded = lock();
            if !is_pending(&mut guarded) {
                return guarded;
            }
            drop(guarded);
            // Where a signal interrupts it, the byte that is yet to come ends a later wait, which then goes on.
            let _ = (&pipe.reader).read(&mut [0]);
        }
    }

    /// Ends the wait: once for each time that it was noted, so that a pipe never fills.
    pub(crate) fn ring(&self) {
        match self.pipe.get() {
            Some(Some(pipe)) => drop((&pipe.writer).write(&[1])),
            _ => self.condvar.notify_one(),
        }
    }
}
