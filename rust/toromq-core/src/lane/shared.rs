//! A lane that an event loop shares with the engine, for what must go on whatever the loop does: it may be busy for
//! minutes, or gone. The loop's are the turns for which a socket is ready, so that what arrives wakes no other thread
//! first. All others the engine takes, and for what the loop leaves undone it looks now and then.

use std::{
    future::Future,
    os::fd::RawFd,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::{Driver, Lane, locked};

/// An event loop, and a task of the engine.
pub(super) struct Shared {
    /// Makes the task take a turn.
    pub(super) poked: Notify,
    /// Makes the loop look for changes.
    changed: Box<dyn Fn() + Send + Sync>,
    /// Whether the loop says that a socket is ready.
    ready: AtomicBool,
}

impl Lane {
    /// For a task of the engine, which [`Lane::host`] is, and an event loop that calls [`Lane::turn_of_loop`] when a socket
    /// is ready, and after each `changed` looks for [`Lane::changes`].
    pub fn shared(runtime: Handle, changed: impl Fn() + Send + Sync + 'static) -> Self {
        let shared = Shared {
            poked: Notify::new(),
            changed: Box::new(changed),
            ready: AtomicBool::new(false),
        };
        Self::driven(runtime, Driver::Shared(shared))
    }

    /// The loop says that a socket of that number is ready; whether it is one of ours. Its turn is to follow.
    pub fn is_ready(&self, fd: RawFd) -> bool {
        let is_ours = locked(&self.inner.sockets)
            .open
            .iter()
            .any(|socket| socket.fd == fd);
        if let Driver::Shared(shared) = &self.inner.driver {
            shared.ready.fetch_or(is_ours, Ordering::Relaxed);
        }
        is_ours
    }

    /// The turn of an event loop that shares the lane, if there is one to take.
    pub fn turn_of_loop(&self) {
        if let Driver::Shared(shared) = &self.inner.driver
            && shared.ready.swap(false, Ordering::Relaxed)
        {
            self.turn_of(true, true);
        }
    }

    /// Where a turn of the loop is under way, returns after the loop has made use of what that brought, and says so with
    /// [`Lane::was_used`], or does not for a while.
    pub(crate) async fn until_used(&self) {
        let mut begun = false;
        std::future::poll_fn(|context| {
            if begun || !self.inner.by_loop.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            begun = true;
            *locked(&self.inner.aside) = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The loop has made use of what its turn brought. The rest is done by the engine.
    pub fn was_used(&self) {
        let waker = locked(&self.inner.aside).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Does some work on a lane that is shared, and takes all turns that the loop does not. What the loop leaves undone is
    /// looked for that often.
    pub(crate) async fn host(
        self,
        pause: Duration,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let Driver::Shared(shared) = &self.inner.driver else {
            return;
        };
        // Also where the engine ends in the middle of it.
        let hosted = Hosted(self.clone());
        let (over, mut is_over) = oneshot::channel::<()>();
        self.spawn(async move {
            work.await;
            drop(over);
        });
        let turns = async {
            let mut looked = Instant::now();
            loop {
                // What is no wait is answered at once.
                let is_prompt = self.inner.expected.load(Ordering::Relaxed) > 0;
                let next = looked + if is_prompt { pause.min(PROMPT) } else { pause };
                let is_late = tokio::select! {
                    biased;
                    _ = &mut is_over => return,
                    () = shared.poked.notified() => false,
                    () = sleep_until(next) => true,
                };
                if is_late {
                    looked = Instant::now();
                    self.was_used();
                }
                self.turn(is_late);
                if self.has_changes() {
                    (shared.changed)();
                }
            }
        };
        // A turn ends when there is nothing more to do. So what it calls must not think that it had its share.
        tokio::task::unconstrained(turns).await;
        // Connections end after what used them.
        self.turn(false);
        drop(hosted);
    }
}

/// How soon the engine looks for the reply to what does not block.
const PROMPT: Duration = Duration::from_millis(5);

/// Ends what a lane was host to.
struct Hosted(Lane);

impl Drop for Hosted {
    fn drop(&mut self) {
        self.0.end();
        if let Driver::Shared(shared) = &self.0.inner.driver
            && self.0.has_changes()
        {
            (shared.changed)();
        }
    }
}
