//! Work that is driven by somebody else: by an event loop that watches the connection's socket, or by a thread that has
//! nothing else to do and waits for that. Everything happens on that thread. A command is written by whoever asks for it,
//! and its reply is read by whoever waits for it, so no other thread has to be woken in between. That is most of what a
//! single command costs.

mod shared;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    ops::Range,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
};

use shared::Shared;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the event loop must do about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Call the lane's turn whenever it can be read from.
    Read,
    /// The same when it can be written to.
    Write,
    /// No longer when it can be written to.
    WriteNoMore,
    /// Forget it: it is about to be closed.
    Nothing,
}

/// Tasks and sockets of one event loop.
#[derive(Clone)]
pub struct Lane {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Handle,
    running: Mutex<Running>,
    spawned: Mutex<Vec<Spawned>>,
    sockets: Mutex<Sockets>,
    /// Whether a task may go on.
    woken: AtomicBool,
    /// Whether a turn is under way, which looks at `woken` at its end.
    turning: AtomicBool,
    closed: AtomicBool,
    driver: Driver,
    /// How many replies are on their way.
    expected: AtomicUsize,
    /// Whether the event loop takes the turn that is under way.
    by_loop: AtomicBool,
    /// What waits until the loop has made use of what a turn brought.
    aside: Mutex<Option<Waker>>,
}

/// Who takes the turns.
enum Driver {
    /// An event loop, which this makes take one.
    Loop(Box<dyn Fn() + Send + Sync>),
    Thread(OwnThread),
    Shared(Shared),
}

/// A thread that waits, so long at a time.
struct OwnThread {
    limit: Duration,
    poked: Mutex<bool>,
    ready: Condvar,
}

#[derive(Default)]
struct Running {
    /// Those that read and write; polled first, so that a reply that is there is seen before its deadline is.
    drivers: FuturesUnordered<Task>,
    tasks: FuturesUnordered<Task>,
}

enum Spawned {
    Driver(Task),
    Task(Task),
}

#[derive(Default)]
struct Sockets {
    open: Vec<Arc<Readiness>>,
    changes: VecDeque<(RawFd, Watch)>,
    /// Kept until the loop has forgotten them, so that no new socket gets their number before.
    parting: Vec<Arc<Stream>>,
    /// Whether there is no loop that would.
    unwatched: bool,
}

struct Readiness {
    fd: RawFd,
    /// Whether it may be read from without being told so again.
    readable: AtomicBool,
    reader: Mutex<Option<Waker>>,
    writer: Mutex<Option<Waker>>,
    /// What its own thread has read.
    taken: Option<Mutex<Taken>>,
    stream: Arc<Stream>,
}

struct Taken {
    buffer: Box<[u8]>,
    /// Where in it lies what was not asked for yet.
    rest: Range<usize>,
    /// How the connection ended.
    ended: Option<io::Result<()>>,
}

const BUFFER: usize = 16_384;

impl Default for Taken {
    fn default() -> Self {
        Self {
            buffer: vec![0; BUFFER].into(),
            rest: 0..0,
            ended: None,
        }
    }
}

/// As long as this is kept, a reply is on its way.
pub(crate) struct Expecting<'a>(&'a AtomicUsize);

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lane")
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if !self.turning.load(Ordering::SeqCst) {
            match &self.driver {
                Driver::Loop(poke) => poke(),
                Driver::Thread(thread) => {
                    *locked(&thread.poked) = true;
                    thread.ready.notify_one();
                }
                Driver::Shared(shared) => shared.poked.notify_one(),
            }
        }
    }
}

impl Lane {
    /// For an event loop that takes a turn after each `poke`, which comes from any thread. Timers are those of `runtime`.
    pub fn new(runtime: Handle, poke: impl Fn() + Send + Sync + 'static) -> Self {
        Self::driven(runtime, Driver::Loop(Box::new(poke)))
    }

    /// For a thread, which calls [`Lane::wait`] and takes a turn after each. It waits for `limit` at most.
    #[must_use]
    pub fn of_thread(runtime: Handle, limit: Duration) -> Self {
        let thread = OwnThread {
            limit,
            poked: Mutex::default(),
            ready: Condvar::new(),
        };
        Self::driven(runtime, Driver::Thread(thread))
    }

    fn driven(runtime: Handle, driver: Driver) -> Self {
        let sockets = Sockets {
            unwatched: matches!(driver, Driver::Thread(_)),
            ..Sockets::default()
        };
        let inner = Inner {
            runtime,
            running: Mutex::default(),
            spawned: Mutex::default(),
            sockets: Mutex::new(sockets),
            woken: AtomicBool::new(false),
            turning: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            driver,
            expected: AtomicUsize::new(0),
            by_loop: AtomicBool::new(false),
            aside: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Whether both are the same one.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether its event loop has gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::Relaxed)
    }

    /// Whether it has ended, and its loop has nothing left to do for sockets. They end a moment after the lane has.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let sockets = locked(&self.inner.sockets);
        self.is_closed() && sockets.open.is_empty() && !sockets.has_changes()
    }

    /// Where it sleeps and connects.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// Begins a task. It is polled in the turn that is under way, or in the next one.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.begin(Spawned::Task(Box::pin(task)));
    }

    /// The same for what reads and writes.
    pub(crate) fn spawn_driver(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.begin(Spawned::Driver(Box::pin(task)));
    }

    fn begin(&self, task: Spawned) {
        if !self.is_closed() {
            locked(&self.inner.spawned).push(task);
            self.inner.wake_by_ref();
        }
    }

    /// Begins a task now, on the thread of the event loop.
    pub fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.within(|| self.spawn(task));
    }

    /// Does something on the thread of the event loop, and goes on at once with what that woke.
    pub fn within(&self, something: impl FnOnce()) {
        let inner = &self.inner;
        let nested = inner.turning.swap(true, Ordering::SeqCst);
        something();
        if !nested {
            inner.turning.store(false, Ordering::SeqCst);
            if inner.woken.load(Ordering::SeqCst) {
                self.turn(false);
            }
        }
    }

    /// Goes on with everything that can. `ready` when the loop says that sockets are.
    pub fn turn(&self, ready: bool) {
        self.turn_of(ready, false);
    }

    fn turn_of(&self, mut ready: bool, by_loop: bool) {
        let inner = &self.inner;
        loop {
            let mut running = match inner.running.try_lock() {
                Ok(running) => running,
                // A task that panicked is gone, and no other with it.
                Err(TryLockError::Poisoned(running)) => running.into_inner(),
                // From within a task, or while the lane is closed, or the other one of two that share it is at it.
                Err(TryLockError::WouldBlock) => return,
            };
            if self.is_closed() {
                // A loop that was told of a socket before. What is polled from now on would keep the lane by its waker.
                return;
            }
            inner.by_loop.store(by_loop, Ordering::SeqCst);
            self.go_on(&mut running, ready);
            drop(running);
            // What woke it since may have been refused a turn for this one.
            if !inner.woken.load(Ordering::SeqCst) {
                return;
            }
            ready = false;
        }
    }

    fn go_on(&self, running: &mut Running, ready: bool) {
        let inner = &self.inner;
        let _entered = inner.runtime.enter();
        inner.turning.store(true, Ordering::SeqCst);
        if ready {
            for socket in &locked(&inner.sockets).open {
                socket.ready();
            }
        }
        let waker = Waker::from(Arc::clone(inner));
        let mut context = Context::from_waker(&waker);
        loop {
            inner.woken.store(false, Ordering::SeqCst);
            for spawned in std::mem::take(&mut *locked(&inner.spawned)) {
                match spawned {
                    Spawned::Driver(task) => running.drivers.push(task),
                    Spawned::Task(task) => running.tasks.push(task),
                }
            }
            while let Poll::Ready(Some(())) = running.drivers.poll_next_unpin(&mut context) {}
            while let Poll::Ready(Some(())) = running.tasks.poll_next_unpin(&mut context) {}
            if inner.woken.load(Ordering::SeqCst) || !locked(&inner.spawned).is_empty() {
                continue;
            }
            inner.turning.store(false, Ordering::SeqCst);
            // Woken by another thread between the two: it took this turn for one that would see it.
            if !inner.woken.load(Ordering::SeqCst) {
                break;
            }
            inner.turning.store(true, Ordering::SeqCst);
        }
    }

    /// Whether a task has not ended.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let is_task = |spawned: &Spawned| matches!(spawned, Spawned::Task(_));
        !locked(&self.inner.running).tasks.is_empty()
            || locked(&self.inner.spawned).iter().any(is_task)
    }

    /// Tells the thread that waits what for.
    pub(crate) fn expect_reply(&self) -> Expecting<'_> {
        self.inner.expected.fetch_add(1, Ordering::Relaxed);
        Expecting(&self.inner.expected)
    }

    /// Waits until there may be something to do: in one call to the system that brings the reply, where one is on its
    /// way. What else may come meanwhile, a deadline say, is seen when the thread's limit is over.
    pub fn wait(&self) {
        let Driver::Thread(thread) = &self.inner.driver else {
            return;
        };
        let socket = if self.inner.expected.load(Ordering::Relaxed) > 0 {
            locked(&self.inner.sockets).open.first().cloned()
        } else {
            None
        };
        if let Some(socket) = socket {
            socket.take();
            return;
        }
        let (mut poked, _) = thread
            .ready
            .wait_timeout_while(locked(&thread.poked), thread.limit, |poked| !*poked)
            .unwrap_or_else(PoisonError::into_inner);
        *poked = false;
    }

    /// Whether the loop has anything to do for sockets.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        locked(&self.inner.sockets).has_changes()
    }

    /// What the loop has to do for sockets, in this order. Those it is to forget are closed at the next call.
    #[must_use]
    pub fn changes(&self) -> Vec<(RawFd, Watch)> {
        let mut sockets = locked(&self.inner.sockets);
        let changes: Vec<_> = sockets.changes.drain(..).collect();
        if !changes.iter().any(|(_, watch)| *watch == Watch::Nothing) {
            sockets.parting.clear();
        }
        changes
    }

    /// Ends everything; the event loop is gone.
    pub fn close(&self) {
        self.leave();
        self.end();
    }

    /// No event loop watches the sockets any more; who shares the lane goes on without one.
    pub fn leave(&self) {
        let mut sockets = locked(&self.inner.sockets);
        sockets.unwatched = true;
        sockets.changes.clear();
        let parting = std::mem::take(&mut sockets.parting);
        drop(sockets);
        drop(parting);
    }

    fn end(&self) {
        self.inner.closed.store(true, Ordering::Relaxed);
        let running = std::mem::take(&mut *locked(&self.inner.running));
        let spawned = std::mem::take(&mut *locked(&self.inner.spawned));
        let _entered = self.inner.runtime.enter();
        drop((running, spawned));
    }

    /// A socket of this lane, which nobody else reads or writes.
    pub(crate) fn adopt(&self, stream: Stream) -> io::Result<LaneStream> {
        let fd = stream.as_raw_fd();
        let own = match &self.inner.driver {
            Driver::Loop(_) | Driver::Shared(_) => {
                stream.set_nonblocking()?;
                None
            }
            Driver::Thread(thread) => {
                stream.set_blocking(thread.limit)?;
                Some(Mutex::default())
            }
        };
        let readiness = Arc::new(Readiness {
            fd,
            readable: AtomicBool::new(true),
            reader: Mutex::default(),
            writer: Mutex::default(),
            taken: own,
            stream: Arc::new(stream),
        });
        let mut sockets = locked(&self.inner.sockets);
        sockets.open.push(Arc::clone(&readiness));
        sockets.change(fd, Watch::Read);
        drop(sockets);
        Ok(LaneStream {
            lane: self.clone(),
            readiness,
            writing: false,
        })
    }
}

impl Sockets {
    fn has_changes(&self) -> bool {
        !(self.changes.is_empty() && self.parting.is_empty())
    }

    fn change(&mut self, fd: RawFd, watch: Watch) {
        if !self.unwatched {
            self.changes.push_back((fd, watch));
        }
    }
}

impl Readiness {
    fn ready(&self) {
        self.readable.store(true, Ordering::Relaxed);
        let wakers = [locked(&self.reader).take(), locked(&self.writer).take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Reads what there is, or will be soon.
    fn take(&self) {
        let Some(taken) = &self.taken else {
            return;
        };
        let mut taken = locked(taken);
        if !taken.rest.is_empty() {
            return;
        }
        match self.stream.read(&mut taken.buffer) {
            Ok(0) => taken.ended = Some(Ok(())),
            Ok(count) => taken.rest = 0..count,
            Err(error) if is_passing(&error) => {}
            Err(error) => taken.ended = Some(Err(error)),
        }
    }
}

/// Whether the next try may have another end.
fn is_passing(error: &io::Error) -> bool {
    // The second is what some systems call a time limit that is over.
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// A connected socket.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    fn set_blocking(&self, limit: Duration) -> io::Result<()> {
        let limit = Some(limit);
        match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(limit)?;
                stream.set_write_timeout(limit)
            }
            Self::Unix(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(limit)?;
                stream.set_write_timeout(limit)
            }
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&mut &*stream).read(buffer),
            Self::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&mut &*stream).write(bytes),
            Self::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn shutdown(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

/// A socket whose readiness the lane tells.
pub(crate) struct LaneStream {
    lane: Lane,
    readiness: Arc<Readiness>,
    /// Whether the loop was asked to tell when it can be written to.
    writing: bool,
}

impl LaneStream {
    fn watch_writing(&mut self, writing: bool) {
        if std::mem::replace(&mut self.writing, writing) != writing {
            let watch = if writing {
                Watch::Write
            } else {
                Watch::WriteNoMore
            };
            locked(&self.lane.inner.sockets).change(self.readiness.fd, watch);
        }
    }
}

impl AsyncRead for LaneStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let readiness = &self.readiness;
        if let Some(taken) = &readiness.taken {
            let mut taken = locked(taken);
            if !taken.rest.is_empty() {
                let count = taken.rest.len().min(buffer.remaining());
                let end = taken.rest.start + count;
                buffer.put_slice(&taken.buffer[taken.rest.start..end]);
                taken.rest.start = end;
                return Poll::Ready(Ok(()));
            }
            return match taken.ended.take() {
                Some(end) => Poll::Ready(end),
                None => {
                    *locked(&readiness.reader) = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        }
        loop {
            if !readiness.readable.load(Ordering::Relaxed) {
                *locked(&readiness.reader) = Some(context.waker().clone());
                return Poll::Pending;
            }
            let room = buffer.initialize_unfilled();
            match readiness.stream.read(room) {
                Ok(count) => {
                    // A short read emptied it: the loop tells when there is more. That saves asking once more in vain.
                    if count > 0 && count < room.len() {
                        readiness.readable.store(false, Ordering::Relaxed);
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    readiness.readable.store(false, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for LaneStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.readiness.stream.write(bytes) {
                Err(error) if is_passing(&error) && error.kind() != io::ErrorKind::Interrupted => {
                    *locked(&self.readiness.writer) = Some(context.waker().clone());
                    self.watch_writing(true);
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => {
                    self.watch_writing(false);
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for LaneStream {
    fn drop(&mut self) {
        let mut sockets = locked(&self.lane.inner.sockets);
        sockets
            .open
            .retain(|open| !Arc::ptr_eq(open, &self.readiness));
        if !sockets.unwatched {
            if matches!(self.lane.inner.driver, Driver::Shared(_)) {
                // Its end must not wait for a loop that is busy.
                self.readiness.stream.shutdown();
            }
            sockets.change(self.readiness.fd, Watch::Nothing);
            sockets.parting.push(Arc::clone(&self.readiness.stream));
        }
    }
}
