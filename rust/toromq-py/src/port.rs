//! Many results, one wake-up of the event loop. Engine threads only fill a list and write a byte: they never touch the
//! interpreter, so they can neither wait for it nor crash at its end.

use std::{
    collections::{HashMap, VecDeque},
    io::{Read as _, Write as _},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use pyo3::{
    IntoPyObjectExt as _, PyTraverseError, PyVisit,
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyTuple},
};
use tokio::runtime::Handle;
use toromq_core::{
    error::{Error, Result},
    events::{Event, Place},
    flow::Node,
    job::JobRecord,
    lane::{Lane, Watch},
    queue::{Added, Queue, Scheduler},
    worker::Failed,
};

use crate::{
    answer::{Addressee, Addressees, Answer, is_within_task},
    bell::Bell,
    drive::SIGNALS,
    errors::to_python,
    held,
    runtime::{self, OfProcess},
    turns::Turns,
};

pub(crate) enum Item {
    None,
    Flag(bool),
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
    Texts(Vec<String>),
    Added(Vec<Result<Added>>),
    Numbers(Vec<i64>),
    Job(Option<JobRecord>),
    Jobs(Vec<JobRecord>),
    Tree(Vec<Node>),
    Schedulers(Vec<Scheduler>),
    /// A job that was fetched by hand, and what went wrong on the way.
    Fetched(Option<JobRecord>, Vec<Error>),
    Held(Vec<Arc<JobRecord>>),
    Logs(Vec<String>, i64),
    Fields(Vec<(String, Vec<u8>)>),
    Pairs(Vec<(String, String)>),
    Page(u64, Vec<Vec<u8>>),
    Workers(Vec<(String, Vec<(String, String)>)>),
    Failed(Error),
    Event(&'static str, Box<Item>),
    Place(Place),
    Entries(Vec<Event>, Place),
    CaughtUp(Vec<Event>, Place, bool, bool),
    JobCompleted((String, String), i64),
    JobDropped((String, String)),
    JobFailed(Arc<JobRecord>, Failed),
}

pub(crate) fn dict_of_bytes<'py>(
    py: Python<'py>,
    fields: &[(String, Vec<u8>)],
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in fields {
        dict.set_item(name, PyBytes::new(py, value))?;
    }
    Ok(dict)
}

fn record(py: Python<'_>, job: &JobRecord) -> PyResult<Py<PyAny>> {
    let fields = dict_of_bytes(py, &job.fields)?;
    (
        &job.id,
        &job.token,
        job.attempts_started,
        job.attempts_made,
        fields,
    )
        .into_py_any(py)
}

/// Entries of the events stream: (id, name, fields as bytes) each.
fn entries<'py>(py: Python<'py>, events: &[Event]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for event in events {
        let fields = dict_of_bytes(py, &event.fields)?;
        list.append((event.id.to_string(), &event.name, fields))?;
    }
    Ok(list)
}

/// How far a stream was read: the last id, and how many entries went before where that is known.
fn place(place: &Place) -> (String, Option<i64>) {
    (place.position.to_string(), place.counted)
}

impl Item {
    fn to_python(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Self::None => Ok(py.None()),
            Self::Flag(value) => value.into_py_any(py),
            Self::Number(value) => value.into_py_any(py),
            Self::Text(value) => value.into_py_any(py),
            Self::Bytes(value) => PyBytes::new(py, value).into_py_any(py),
            Self::Texts(values) => values.into_py_any(py),
            Self::Added(jobs) => {
                let list = PyList::empty(py);
                for job in jobs {
                    match job {
                        Ok(added) => list.append((&added.id, added.duplicate))?,
                        Err(error) => list.append(to_python(error).into_value(py))?,
                    }
                }
                list.into_py_any(py)
            }
            Self::Numbers(values) => values.into_py_any(py),
            Self::Job(job) => job
                .as_ref()
                .map_or_else(|| Ok(py.None()), |job| record(py, job)),
            Self::Fetched(job, reported) => {
                let job = job.as_ref().map(|job| record(py, job)).transpose()?;
                let reported: Vec<PyErr> = reported.iter().map(to_python).collect();
                let errors = reported.into_iter().map(|error| error.into_value(py));
                (job, PyList::new(py, errors)?).into_py_any(py)
            }
            Self::Schedulers(schedulers) => {
                let list = PyList::empty(py);
                for (id, due, record) in schedulers {
                    list.append((id, due, dict_of_bytes(py, record)?))?;
                }
                list.into_py_any(py)
            }
            Self::Jobs(jobs) => {
                let list = PyList::empty(py);
                for job in jobs {
                    list.append(record(py, job)?)?;
                }
                list.into_py_any(py)
            }
            Self::Tree(nodes) => {
                let list = PyList::empty(py);
                for node in nodes {
                    let job = record(py, &node.record)?;
                    let place = (&node.prefix, &node.queue);
                    list.append((place, &node.state, job, &node.children, node.count))?;
                }
                list.into_py_any(py)
            }
            Self::Held(jobs) => {
                let list = PyList::empty(py);
                for job in jobs {
                    list.append(held::record(py, job)?)?;
                }
                list.into_py_any(py)
            }
            Self::Logs(lines, count) => (lines, count).into_py_any(py),
            Self::Fields(fields) => Ok(dict_of_bytes(py, fields)?.into()),
            Self::Pairs(pairs) => pairs.into_py_any(py),
            Self::Page(next, found) => {
                let found = found.iter().map(|bytes| PyBytes::new(py, bytes));
                (next, PyList::new(py, found)?).into_py_any(py)
            }
            Self::Workers(workers) => workers.into_py_any(py),
            Self::Failed(error) => to_python(error).into_value(py).into_py_any(py),
            Self::Event(name, item) => (name, item.to_python(py)?).into_py_any(py),
            Self::Place(read) => place(read).into_py_any(py),
            Self::Entries(events, read) => (entries(py, events)?, place(read)).into_py_any(py),
            Self::CaughtUp(events, read, lost, is_last) => {
                (entries(py, events)?, place(read), lost, is_last).into_py_any(py)
            }
            Self::JobCompleted(run, finished_on) => (run, finished_on).into_py_any(py),
            Self::JobDropped(run) => run.into_py_any(py),
            Self::JobFailed(job, failed) => (
                held::record(py, job)?,
                &failed.reason,
                &failed.stacktrace,
                failed.finished_on,
            )
                .into_py_any(py),
        }
    }
}

pub(crate) struct Inbox {
    items: Mutex<Items>,
    signal: Signal,
    /// Whether a byte is on its way.
    signalled: AtomicBool,
    /// Whether its event loop is about to take what has arrived.
    draining: AtomicBool,
    /// Whether its thread has waited for what others carry, and takes turns with them.
    takes_turns: AtomicBool,
}

#[derive(Default)]
struct Items {
    arrived: Vec<(u64, Item)>,
    /// What arrives when it is its thread's turn.
    due: Vec<(u64, Item)>,
    /// Whether its thread waits, and must be told when something arrives.
    awaited: bool,
    /// Where that must wake the next one.
    turns: Option<Arc<Turns>>,
    ended: bool,
}

/// How its reader learns that something arrived.
enum Signal {
    /// A byte for an event loop.
    Byte(UnixStream),
    /// For a thread that does nothing else: which, where it is known; and how long that waits before it looks for signals,
    /// if it is the one that handles them. A wait without an end is cheaper.
    Thread(Bell, Option<ThreadId>, Option<Duration>),
}

impl Inbox {
    fn items(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody else carries what its thread is about to wait for.
    pub(crate) fn is_carried(&self) {
        self.takes_turns.store(true, Ordering::Relaxed);
    }

    pub(crate) fn put(&self, ticket: u64, item: Item) {
        let (first, awaited) = {
            let mut items = self.items();
            items.arrived.push((ticket, item));
            (items.arrived.len() == 1, std::mem::take(&mut items.awaited))
        };
        match &self.signal {
            Signal::Byte(_) if !first || self.draining.load(Ordering::SeqCst) => {}
            Signal::Byte(_) => self.wake(),
            // What a thread has brought itself it does not wait for.
            Signal::Thread(_, thread, _) if *thread == Some(thread::current().id()) => {}
            Signal::Thread(bell, ..) if awaited => bell.ring(),
            Signal::Thread(..) => {}
        }
    }

    /// The same where other threads get theirs at the same time.
    pub(crate) fn put_in_turn(
        self: Arc<Self>,
        ticket: u64,
        item: Item,
        turns: &Arc<Turns>,
        queue: Arc<Queue>,
        engine: Handle,
    ) {
        match &self.signal {
            Signal::Thread(_, thread, _) if *thread != Some(thread::current().id()) => {
                self.items().due.push((ticket, item));
                turns.enter(self, queue, engine);
            }
            _ => self.put(ticket, item),
        }
    }

    /// It is its thread's turn. Gives whether that wakes the next one.
    pub(crate) fn release(&self, turns: &Arc<Turns>) -> bool {
        let awaited = {
            let mut items = self.items();
            let items = &mut *items;
            items.arrived.append(&mut items.due);
            let awaited = std::mem::take(&mut items.awaited);
            if awaited {
                items.turns = Some(Arc::clone(turns));
            }
            awaited
        };
        if awaited && let Signal::Thread(bell, ..) = &self.signal {
            bell.ring();
        }
        awaited
    }

    /// Lets the event loop drain.
    fn wake(&self) {
        if let Signal::Byte(signal) = &self.signal
            && !self.signalled.swap(true, Ordering::SeqCst)
        {
            // A full pipe holds a wake-up already.
            drop((&mut &*signal).write(&[1]));
        }
    }
}

/// Where results arrive for one event loop, or for one thread that waits for them.
#[pyclass(frozen, module = "toromq._native")]
pub(crate) struct Port {
    pub(crate) inbox: OfProcess<Arc<Inbox>>,
    woken: Option<UnixStream>,
    /// What the event loop drives.
    lane: OfProcess<Option<Lane>>,
    tickets: AtomicU64,
    /// Whom an event loop gives what has arrived.
    addressees: OfProcess<Arc<Addressees>>,
    /// What it is about to give.
    arriving: Mutex<VecDeque<(u64, Item)>>,
    /// Those that it shares with the engine. Locked only while the interpreter is held, so a fork can't catch it.
    waits: OfProcess<Mutex<Vec<Lane>>>,
    /// Whether its thread has to go on with another call later.
    is_within: bool,
}

impl Port {
    pub(crate) fn lane(&self) -> Option<&Lane> {
        self.lane.as_ref()
    }

    pub(crate) fn is_blocking(&self) -> bool {
        self.woken.is_none()
    }

    fn waits(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether who asks here is in the middle of another call, which goes on afterwards.
    pub(crate) fn is_within(&self) -> bool {
        self.is_within
    }

    /// A lane for the wait of one worker, which the event loop is to watch.
    pub(crate) fn share_lane(&self) -> PyResult<Lane> {
        let inbox = Arc::clone(&self.inbox);
        let lane = Lane::shared(runtime::handle()?, move || inbox.wake());
        let mut waits = self.waits();
        waits.retain(|lane| !lane.is_over());
        waits.push(lane.clone());
        Ok(lane)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if !self.lane.is_ours() {
            return;
        }
        if let Some(lane) = &*self.lane {
            lane.close();
        }
        self.waits().iter().for_each(Lane::leave);
    }
}

#[pymethods]
impl Port {
    /// For an event loop, which watches `fileno`; or, with `blocking`, for a thread that calls `wait` or `answer`.
    #[new]
    /// `of_caller` says that it is the calling thread which does, `within` that it does so in the middle of another call.
    #[pyo3(signature = (blocking = false, handles_signals = true, of_caller = true, within = false))]
    fn new(blocking: bool, handles_signals: bool, of_caller: bool, within: bool) -> PyResult<Self> {
        let (signal, woken) = if blocking {
            let limit = handles_signals.then_some(SIGNALS);
            let thread = of_caller.then(|| thread::current().id());
            (Signal::Thread(Bell::default(), thread, limit), None)
        } else {
            let (woken, signal) = UnixStream::pair()?;
            woken.set_nonblocking(true)?;
            signal.set_nonblocking(true)?;
            (Signal::Byte(signal), Some(woken))
        };
        let inbox = Arc::new(Inbox {
            items: Mutex::default(),
            signal,
            signalled: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            takes_turns: AtomicBool::new(false),
        });
        let lane = if blocking {
            None
        } else {
            let inbox = Arc::clone(&inbox);
            Some(Lane::new(runtime::handle()?, move || inbox.wake()))
        };
        Ok(Self {
            inbox: OfProcess::new(inbox),
            woken,
            lane: OfProcess::new(lane),
            tickets: AtomicU64::new(1),
            addressees: OfProcess::new(Arc::default()),
            arriving: Mutex::default(),
            waits: OfProcess::new(Mutex::default()),
            is_within: within,
        })
    }

    /// What becomes readable when there is something to deliver; -1 for a blocking port.
    fn fileno(&self) -> i32 {
        self.woken.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// For an event loop: begins an operation by `operation(port, ticket, *arguments)`, and gives what to await for its
    /// answer. One that only waits is ended with its caller; what a caller who was cancelled asked for is done all the same.
    #[pyo3(signature = (operation, *arguments))]
    fn call<'py>(
        slf: &Bound<'py, Self>,
        operation: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, Answer>> {
        let py = slf.py();
        let port = slf.get();
        let ticket = port.tickets.fetch_add(1, Ordering::Relaxed);
        let answer = Bound::new(py, Answer::at(&port.addressees, ticket))?;
        port.expect(ticket, Addressee::Answer(answer.clone().unbind()));
        match Self::begin(slf, operation, ticket, arguments) {
            Ok(started) if started.is_none() => {}
            Ok(started) => answer.get().ends(started.unbind()),
            Err(error) => {
                port.forget(ticket);
                return Err(error);
            }
        }
        Ok(answer)
    }

    /// The same for what keeps sending to `receiver`: its ticket, and what the operation returns.
    #[pyo3(signature = (receiver, operation, *arguments))]
    fn attach<'py>(
        slf: &Bound<'py, Self>,
        receiver: Py<PyAny>,
        operation: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<(u64, Bound<'py, PyAny>)> {
        let port = slf.get();
        let ticket = port.tickets.fetch_add(1, Ordering::Relaxed);
        port.expect(ticket, Addressee::Receiver(receiver));
        let started = Self::begin(slf, operation, ticket, arguments);
        if started.is_err() {
            port.forget(ticket);
        }
        Ok((ticket, started?))
    }

    /// Stops listening to a ticket.
    fn detach(&self, ticket: u64) {
        self.forget(ticket);
    }

    /// For an event loop: gives everything that has arrived to whom it is for.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        // Whatever a coroutine does when it goes on is done within this.
        let _using = runtime::using_with(py);
        let arrived = self.collect();
        self.arriving().extend(arrived);
        let within_task = is_within_task(py)?;
        // A coroutine that goes on may deliver as well.
        while let Some((ticket, item)) = { self.arriving().pop_front() } {
            if let Err(error) = self.hand_over(py, ticket, item, within_task) {
                // What arrived with it is for others.
                if !self.arriving().is_empty() {
                    self.inbox.wake();
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the event loop has to change what it watches.
    #[getter]
    fn changed(&self) -> bool {
        self.lane().is_some_and(Lane::has_changes) || self.waits().iter().any(Lane::has_changes)
    }

    /// What it has to change: a file descriptor and "read", "write", "write no more" or "nothing" each. "wait" is "read",
    /// where `ready` is to be called before `deliver`, and `used` after what that gave was made use of.
    fn changes(&self) -> Vec<(i32, &'static str)> {
        let named = |reading| {
            move |(fd, watch)| {
                let name = match watch {
                    Watch::Read => reading,
                    Watch::Write => "write",
                    Watch::WriteNoMore => "write no more",
                    Watch::Nothing => "nothing",
                };
                (fd, name)
            }
        };
        let changes = self.lane().map(Lane::changes).unwrap_or_default();
        let mut changes: Vec<_> = changes.into_iter().map(named("read")).collect();
        self.waits().retain(|lane| {
            changes.extend(lane.changes().into_iter().map(named("wait")));
            !lane.is_over()
        });
        changes
    }

    fn ready(&self, fd: i32) {
        // A forked child would read what is its parent's.
        if self.waits.is_ours() {
            self.waits().iter().any(|lane| lane.is_ready(fd));
        }
    }

    fn used(&self) {
        self.waits().iter().for_each(Lane::was_used);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        if !self.addressees.is_ours() {
            return Ok(());
        }
        // Where it is locked it is in use, and what it holds is not collected.
        let Ok(addressees) = self.addressees.try_lock() else {
            return Ok(());
        };
        for addressee in addressees.values() {
            match addressee {
                Addressee::Answer(answer) => visit.call(answer)?,
                Addressee::Receiver(receiver) => visit.call(receiver)?,
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        if self.addressees.is_ours() {
            let addressees = std::mem::take(&mut *self.addressees());
            drop(addressees);
        }
    }

    /// Lets the thread that waits here go: `wait` gives nothing from now on.
    fn end(&self) {
        let awaited = {
            let mut items = self.inbox.items();
            items.ended = true;
            std::mem::take(&mut items.awaited)
        };
        if awaited && let Signal::Thread(bell, ..) = &self.inbox.signal {
            bell.ring();
        }
    }

    /// For a thread: everything that has arrived, once there is something: (ticket, value) each. Signals are handled
    /// meanwhile.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.await_some(py)?;
        let list = PyList::empty(py);
        for (ticket, item) in self.collect() {
            list.append((ticket, item.to_python(py)?))?;
        }
        Ok(list)
    }

    /// The same for one ticket: its value, or raises it. What else has arrived is for calls that were interrupted.
    fn answer(&self, py: Python<'_>, ticket: u64) -> PyResult<Py<PyAny>> {
        loop {
            self.await_some(py)?;
            let arrived = std::mem::take(&mut self.inbox.items().arrived);
            for (answered, item) in arrived {
                if answered == ticket {
                    return match item {
                        Item::Failed(error) => Err(to_python(&error)),
                        item => item.to_python(py),
                    };
                }
            }
        }
    }
}

impl Port {
    fn begin<'py>(
        slf: &Bound<'py, Self>,
        operation: &Bound<'py, PyAny>,
        ticket: u64,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        runtime::stay_with(py);
        let mut all = Vec::with_capacity(arguments.len() + 2);
        all.push(slf.clone().into_any());
        all.push(ticket.into_bound_py_any(py)?);
        all.extend(arguments.iter());
        operation.call1(PyTuple::new(py, all)?)
    }

    fn addressees(&self) -> MutexGuard<'_, HashMap<u64, Addressee>> {
        let addressees = self.addressees.lock();
        addressees.unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, ticket: u64, addressee: Addressee) {
        self.addressees().insert(ticket, addressee);
    }

    fn forget(&self, ticket: u64) {
        // What it was may be the last of something, which ends when the list is not held any more.
        let forgotten = self.addressees().remove(&ticket);
        drop(forgotten);
    }

    fn arriving(&self) -> MutexGuard<'_, VecDeque<(u64, Item)>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has arrived; what the event loop drives goes on first.
    fn collect(&self) -> Vec<(u64, Item)> {
        let inbox = &*self.inbox;
        if let Some(woken) = &self.woken
            && inbox.signalled.load(Ordering::SeqCst)
        {
            let mut bytes = [0; 8];
            let _ = (&mut &*woken).read(&mut bytes);
            // After the byte was read: who sees that none is on its way writes another one.
            inbox.signalled.store(false, Ordering::SeqCst);
        }
        if let Some(lane) = &*self.lane {
            inbox.draining.store(true, Ordering::SeqCst);
            lane.turn(true);
            self.waits().iter().for_each(Lane::turn_of_loop);
            // Before the list is taken: what is put there from now on is either in it, or followed by a byte.
            inbox.draining.store(false, Ordering::SeqCst);
        }
        std::mem::take(&mut inbox.items().arrived)
    }

    fn hand_over(
        &self,
        py: Python<'_>,
        ticket: u64,
        item: Item,
        within_task: bool,
    ) -> PyResult<()> {
        let addressee = {
            let mut addressees = self.addressees();
            match addressees.get(&ticket) {
                Some(Addressee::Receiver(receiver)) => {
                    Some(Addressee::Receiver(receiver.clone_ref(py)))
                }
                _ => addressees.remove(&ticket),
            }
        };
        match addressee {
            // A caller who was cancelled waits no more.
            None => Ok(()),
            Some(Addressee::Receiver(receiver)) => {
                receiver.call1(py, (item.to_python(py)?,)).map(drop)
            }
            Some(Addressee::Answer(answer)) => {
                let outcome = match item {
                    Item::Failed(error) => Err(to_python(&error)),
                    item => item.to_python(py),
                };
                Answer::settle(answer.bind(py), outcome, within_task)
            }
        }
    }

    /// Waits until something has arrived.
    fn await_some(&self, py: Python<'_>) -> PyResult<()> {
        let Signal::Thread(bell, _, limit) = &self.inbox.signal else {
            return Err(PyRuntimeError::new_err(
                "this port is read by an event loop",
            ));
        };
        let inbox = &*self.inbox;
        // Mostly it is there: who was first to ask has brought it itself.
        let mut done = !inbox.items().arrived.is_empty();
        while !done {
            let in_turn = inbox.takes_turns.load(Ordering::Relaxed);
            let (arrived, turns) = py.detach(|| {
                let mut items = bell.wait(&inbox.items, *limit, in_turn, |items| {
                    items.awaited = items.arrived.is_empty() && !items.ended;
                    items.awaited
                });
                items.awaited = false;
                let turns = items.turns.take();
                let arrived = !items.arrived.is_empty() || items.ended;
                drop(items);
                runtime::stay_if_left();
                (arrived, turns)
            });
            // The first thing that is done with the interpreter: nobody waits for what its user does with it.
            if let Some(turns) = turns {
                turns.next();
            }
            if !arrived {
                py.check_signals()?;
            }
            done = arrived;
        }
        Ok(())
    }
}
