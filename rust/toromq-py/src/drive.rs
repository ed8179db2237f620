//! Where operations are driven: on the thread of whoever asks, so that no other one has to be woken on the way to Redis
//! and back. An event loop watches the socket itself (a lane); a blocking caller waits for it itself. What can be neither
//! is driven by the engine's thread.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pyo3::prelude::*;
use toromq_core::{connection::ConnectionSettings, lane::Lane, link::Link};

use crate::{
    port::Port,
    runtime::{self, OfProcess},
    turns::Turns,
};

// How soon Ctrl-C is heard.
pub(crate) const SIGNALS: Duration = Duration::from_millis(50);
/// How many threads may have a connection of their own at once; beyond that they share the engine's.
const LONE: usize = 4;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sockets of one connection object: the engine's, those of event loops, those of blocking threads.
pub(crate) struct Drive {
    pub(crate) settings: ConnectionSettings,
    pub(crate) link: Arc<Link>,
    lanes: Mutex<Vec<(Lane, Weak<Link>)>>,
    /// Those that no thread uses now. Locked only while the interpreter is held, so a fork can't catch it.
    lone: Mutex<Vec<Lone>>,
    /// How many are in use.
    busy: AtomicUsize,
    /// Of the threads that add.
    pub(crate) turns: Arc<Turns>,
}

/// A connection that the thread which uses it drives itself.
struct Lone {
    link: Arc<Link>,
    lane: Lane,
}

impl Drop for Lone {
    fn drop(&mut self) {
        self.lane.close();
    }
}

impl Drive {
    pub(crate) fn new(settings: ConnectionSettings) -> Self {
        Self {
            link: Arc::new(Link::new(&settings)),
            settings,
            lanes: Mutex::default(),
            lone: Mutex::default(),
            busy: AtomicUsize::new(0),
            turns: Arc::default(),
        }
    }

    /// The event loop that would drive what comes through a port, if any.
    pub(crate) fn lane<'a>(&self, port: &'a Port) -> Option<&'a Lane> {
        // TLS needs somebody who answers at any time, and its handshake is the business of the library that makes
        // connections for the engine.
        port.lane().filter(|_| !self.settings.uses_tls())
    }

    /// The connection that an event loop watches.
    pub(crate) fn link_on(&self, lane: &Lane) -> Arc<Link> {
        let mut lanes = locked(&self.lanes);
        lanes.retain(|(_, link)| link.strong_count() > 0);
        if let Some(link) = lanes
            .iter()
            .find(|(known, _)| known.is(lane))
            .and_then(|(_, link)| link.upgrade())
        {
            return link;
        }
        let link = Arc::new(Link::on_lane(&self.settings, lane));
        lanes.push((lane.clone(), Arc::downgrade(&link)));
        link
    }

    /// Drives what `make` gives for a connection: a blocking caller returns when it is done, an event loop goes on.
    pub(crate) fn start<F>(
        &self,
        py: Python<'_>,
        port: &Port,
        make: impl FnOnce(Arc<Link>) -> F,
    ) -> PyResult<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        runtime::refuse_at_end()?;
        if let Some(lane) = self.lane(port) {
            lane.start(make(self.link_on(lane)));
            return Ok(());
        }
        if port.is_blocking()
            && let Some(lone) = self.take()?
        {
            let work = make(Arc::clone(&lone.link));
            return self.wait(py, lone, work);
        }
        runtime::handle()?.spawn(make(Arc::clone(&self.link)));
        Ok(())
    }

    /// A connection for the calling thread.
    fn take(&self) -> PyResult<Option<Lone>> {
        if self.settings.uses_tls() {
            return Ok(None);
        }
        let known = locked(&self.lone).pop();
        let lone = match known {
            None if self.busy.load(Ordering::Relaxed) >= LONE => None,
            None => {
                let lane = Lane::of_thread(runtime::handle()?, SIGNALS);
                Some(Lone {
                    link: Arc::new(Link::on_lane(&self.settings, &lane)),
                    lane,
                })
            }
            known => known,
        };
        if lone.is_some() {
            self.busy.fetch_add(1, Ordering::Relaxed);
        }
        Ok(lone)
    }

    /// Does the work on this thread, without the interpreter's lock. Signals are handled meanwhile; where one ends the
    /// wait, what was begun is done to its end all the same.
    fn wait<F>(&self, py: Python<'_>, lone: Lone, work: F) -> PyResult<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let lane = &lone.lane;
        let mut work = Some(work);
        let interrupted = loop {
            let begun = Instant::now();
            let done = py.detach(|| {
                if let Some(work) = work.take() {
                    let _using = runtime::using();
                    lane.start(work);
                }
                while lane.is_busy() && begun.elapsed() < SIGNALS {
                    go_on(lane);
                }
                !lane.is_busy()
            });
            if done {
                break None;
            }
            if let Err(error) = py.check_signals() {
                break Some(error);
            }
        };
        self.busy.fetch_sub(1, Ordering::Relaxed);
        match interrupted {
            None => {
                locked(&self.lone).push(lone);
                Ok(())
            }
            Some(error) => {
                thread::spawn(move || {
                    while lone.lane.is_busy() {
                        go_on(&lone.lane);
                    }
                });
                Err(error)
            }
        }
    }
}

/// Waits, and does what can be done then.
fn go_on(lane: &Lane) {
    lane.wait();
    let _using = runtime::using();
    lane.turn(true);
}

/// Shared by all that use one connection object in one process.
pub(crate) type SharedDrive = OfProcess<Arc<Drive>>;
