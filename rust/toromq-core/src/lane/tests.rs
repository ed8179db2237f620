use std::{
    future::poll_fn,
    io::Write as _,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, ReadBuf},
    runtime::{Builder, Runtime},
    sync::Notify,
    task::JoinHandle,
};

use super::{Lane, Stream, Watch};

const NEVER: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(30);

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap()
}

/// Something that reads what comes, and tells each of it; and its other end.
fn reader(lane: &Lane, runtime: &Runtime, pause: Duration) -> (UnixStream, mpsc::Receiver<u8>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (tell, told) = mpsc::channel();
    let mut stream = lane.adopt(Stream::Unix(theirs)).unwrap();
    let work = async move {
        let mut buffer = [0; 8];
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            poll_fn(|context| Pin::new(&mut stream).poll_read(context, &mut read))
                .await
                .unwrap();
            if read.filled().is_empty() {
                break;
            }
            for byte in read.filled() {
                tell.send(*byte).unwrap();
            }
        }
    };
    runtime.spawn(lane.clone().host(pause, work));
    (ours, told)
}

/// The number of the socket that the loop was told to watch.
fn watched(lane: &Lane) -> i32 {
    let changes = lane.changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].1, Watch::Read);
    changes[0].0
}

#[test]
fn what_the_loop_leaves_unread_is_read_by_the_engine() {
    let runtime = runtime();
    let lane = Lane::shared(runtime.handle().clone(), || ());
    let (mut ours, told) = reader(&lane, &runtime, Duration::from_millis(5));
    for byte in 0..10 {
        ours.write_all(&[byte]).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(byte));
    }
}

#[test]
fn what_the_loop_reads_is_read_there() {
    let runtime = runtime();
    let lane = Lane::shared(runtime.handle().clone(), || ());
    let (mut ours, told) = reader(&lane, &runtime, NEVER);
    let fd = watched(&lane);
    // As a loop does: it says so again as long as it was not read, which a turn of the engine may keep it from.
    let turn = || {
        assert!(lane.is_ready(fd));
        lane.turn_of_loop();
        told.try_recv().ok()
    };
    for byte in 0..10 {
        ours.write_all(&[byte]).unwrap();
        assert!(!lane.is_ready(ours.as_raw_fd()));
        lane.turn_of_loop();
        let by_loop = std::iter::repeat_with(turn).flatten().next();
        assert_eq!(by_loop, Some(byte));
    }
}

#[test]
fn a_socket_is_kept_until_the_loop_has_forgotten_it() {
    let runtime = runtime();
    let (tell, told) = mpsc::channel();
    let lane = Lane::shared(runtime.handle().clone(), move || {
        // Who has ended listens no more.
        let _ = tell.send(());
    });
    let (ours, _told) = reader(&lane, &runtime, Duration::from_millis(5));
    let fd = watched(&lane);
    // The other end is gone, so the work ends.
    drop(ours);
    told.recv_timeout(PATIENCE).unwrap();
    while !lane.is_closed() {
        thread::yield_now();
    }
    assert_eq!(lane.changes(), [(fd, Watch::Nothing)]);
    assert!(lane.has_changes());
    assert_eq!(lane.changes(), []);
    assert!(!lane.has_changes());
}

/// Tells whether its lane is closed, and whether that is over, in the moment before its socket goes.
struct Last {
    lane: Lane,
    tell: mpsc::Sender<(bool, bool)>,
}

impl Drop for Last {
    fn drop(&mut self) {
        let _ = self.tell.send((self.lane.is_closed(), self.lane.is_over()));
    }
}

#[test]
fn a_lane_is_not_over_while_the_loop_has_a_socket_to_forget() {
    let runtime = runtime();
    let lane = Lane::shared(runtime.handle().clone(), || ());
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let stream = lane.adopt(Stream::Unix(theirs)).unwrap();
    let fd = watched(&lane);
    let (tell, told) = mpsc::channel();
    let last = Last {
        lane: lane.clone(),
        tell,
    };
    // They go in this order.
    let held = (last, stream);
    lane.spawn_driver(async move {
        let _held = held;
        std::future::pending().await
    });
    runtime
        .block_on(runtime.spawn(lane.clone().host(NEVER, async {})))
        .unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok((true, false)));
    assert_eq!(lane.changes(), [(fd, Watch::Nothing)]);
    assert!(!lane.is_over());
    assert_eq!(lane.changes(), []);
    assert!(lane.is_over());
}

#[test]
fn a_turn_that_comes_too_late_keeps_nothing() {
    let runtime = runtime();
    let kept = Arc::new(());
    let inbox = Arc::clone(&kept);
    let lane = Lane::shared(runtime.handle().clone(), move || drop(Arc::clone(&inbox)));
    runtime
        .block_on(runtime.spawn(lane.clone().host(NEVER, async {})))
        .unwrap();
    lane.turn(true);
    drop(lane);
    assert_eq!(Arc::strong_count(&kept), 1);
}

#[test]
fn without_a_loop_sockets_are_closed_at_once() {
    let runtime = runtime();
    let lane = Lane::shared(runtime.handle().clone(), || ());
    lane.leave();
    let (ours, _told) = reader(&lane, &runtime, Duration::from_millis(5));
    drop(ours);
    while !lane.is_closed() {
        thread::yield_now();
    }
    assert!(!lane.has_changes());
}

#[test]
fn no_wake_up_is_lost_between_the_two() {
    const TIMES: usize = 10_000;
    let runtime = runtime();
    let lane = Lane::shared(runtime.handle().clone(), || ());
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let stream = lane.adopt(Stream::Unix(theirs)).unwrap();
    let fd = watched(&lane);
    let asked = Arc::new(Notify::new());
    let (tell, told) = mpsc::channel();
    let asking = Arc::clone(&asked);
    let work = async move {
        let _open = stream;
        for _ in 0..TIMES {
            asking.notified().await;
            tell.send(()).unwrap();
        }
    };
    let host: JoinHandle<()> = runtime.spawn(lane.clone().host(NEVER, work));
    // A loop that takes one turn each time, so that whoever is refused one then has nobody else to come after it.
    let time = Arc::new(AtomicUsize::new(0));
    let (of_loop, loop_time) = (lane.clone(), Arc::clone(&time));
    let turns = thread::spawn(move || {
        for number in 1..=TIMES {
            while loop_time.load(Ordering::SeqCst) < number {
                thread::yield_now();
            }
            of_loop.is_ready(fd);
            of_loop.turn_of_loop();
        }
    });
    for number in 1..=TIMES {
        time.store(number, Ordering::SeqCst);
        // Now a bit before it, now a bit after.
        (0..number % 300).for_each(|_| std::hint::spin_loop());
        asked.notify_one();
        told.recv_timeout(PATIENCE).unwrap();
    }
    runtime.block_on(host).unwrap();
    turns.join().unwrap();
}
