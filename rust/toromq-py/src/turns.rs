//! Threads whose answers came together take them one after the other: whoever has the interpreter wakes the next one.
//! Woken all at once they would stand in line for it, each put to sleep and woken once more, on every core there is.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::runtime::Handle;
use toromq_core::queue::Queue;

use crate::port::Inbox;

/// Those whose answer is there.
#[derive(Default)]
pub(crate) struct Turns {
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// Whether one was woken that has yet to wake the next one.
    moving: bool,
}

/// One of them, the queue it adds to, and what drives that where nobody else does.
type Waiting = (Arc<Inbox>, Arc<Queue>, Handle);

impl Turns {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the thread of `inbox` take its answer when its turn comes.
    pub(crate) fn enter(self: &Arc<Self>, inbox: Arc<Inbox>, queue: Arc<Queue>, engine: Handle) {
        queue.lies_ready();
        let mut line = self.line();
        line.waiting.push_back((inbox, queue, engine));
        if !std::mem::replace(&mut line.moving, true) {
            drop(line);
            self.next();
        }
    }

    /// Wakes the next one, whose business it is then to call this: as soon as it has the interpreter, whatever it does
    /// with that.
    pub(crate) fn next(self: &Arc<Self>) {
        loop {
            let (inbox, queue, engine) = {
                let mut line = self.line();
                let Some(first) = line.waiting.pop_front() else {
                    line.moving = false;
                    return;
                };
                first
            };
            if queue.is_taken() {
                engine.spawn(queue.lead());
            }
            // Its thread may be about to wait, or was interrupted: then it needs no waking, and will wake nobody.
            if inbox.release(self) {
                return;
            }
        }
    }
}
