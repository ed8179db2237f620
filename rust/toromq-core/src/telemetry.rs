//! What this process did, by queue: counts and times. Always on, for it costs a few additions for a job and no lock.

use std::{
    collections::BTreeMap,
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::keys::QueueKeys;

/// The upper bounds of the classes that times are counted in, in microseconds; one more class has none.
pub const BOUNDS: [u64; 20] = [
    100,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// How often times of each class were seen.
#[derive(Debug)]
pub struct Histogram {
    classes: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    const fn new() -> Self {
        Self {
            classes: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            micros: AtomicU64::new(0),
        }
    }

    pub(crate) fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS.partition_point(|bound| *bound < micros);
        self.classes[class].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    pub(crate) fn read(&self) -> Times {
        Times {
            classes: self
                .classes
                .iter()
                .map(|class| class.load(Relaxed))
                .collect(),
            micros: self.micros.load(Relaxed),
        }
    }
}

macro_rules! activity {
    (counts: $($(#[$count_doc:meta])* $count:ident),*; times: $($(#[$time_doc:meta])* $time:ident),*) => {
        /// What was done on one queue.
        #[derive(Debug)]
        pub struct Activity {
            $($(#[$count_doc])* pub $count: AtomicU64,)*
            $($(#[$time_doc])* pub $time: Histogram,)*
        }

        impl Activity {
            pub(crate) const fn new() -> Self {
                Self {
                    $($count: AtomicU64::new(0),)*
                    $($time: Histogram::new(),)*
                }
            }

            fn read(&self) -> (Vec<(&'static str, u64)>, Vec<(&'static str, Times)>) {
                (
                    vec![$((stringify!($count), self.$count.load(Relaxed)),)*],
                    vec![$((stringify!($time), self.$time.read()),)*],
                )
            }
        }
    };
}

activity! {
    counts:
        /// Adds that were answered, those of a job that was there before included.
        added,
        /// Jobs that a worker was given.
        started,
        /// Jobs that were stored as completed.
        completed,
        /// Jobs that were stored as failed for good.
        failed,
        /// Attempts that failed and will be made again.
        retried,
        /// Jobs that went back without an attempt: rate limited, put off by themselves, handed back.
        put_back,
        /// Outcomes that Redis refused.
        refused,
        /// Jobs whose lock was lost while they ran.
        locks_lost,
        /// Jobs of workers that died, which a worker here has queued again.
        stalled;
    times:
        /// From when a job was added or due until a worker had it; first starts only.
        wait,
        /// From when a delayed job was due until a worker had it; first starts only.
        lateness,
        /// From when the worker had a job until its processor began.
        handover,
        /// How long processors took.
        run
}

/// A histogram as it was at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// How many of each class of [`BOUNDS`], and of the last, which has no bound.
    pub classes: Vec<u64>,
    /// Their sum.
    pub micros: u64,
}

/// One queue's figures as they were at some moment.
#[derive(Debug)]
pub struct Figures {
    /// What its keys begin with.
    pub prefix: String,
    /// Its name.
    pub queue: String,
    /// By name.
    pub counts: Vec<(&'static str, u64)>,
    /// By name.
    pub times: Vec<(&'static str, Times)>,
}

struct Registry {
    /// A forked child has done nothing of what its parent did.
    pid: u32,
    reconnects: Arc<AtomicU64>,
    queues: BTreeMap<String, Arc<Activity>>,
}

// Locked when a queue, a worker or a connection is made and when figures are read, never while jobs run.
static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);

fn with_registry<T>(use_it: impl FnOnce(&mut Registry) -> T) -> T {
    let mut current = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = current.take().filter(|ours| ours.pid == process::id());
    use_it(current.insert(ours.unwrap_or_else(|| Registry {
        pid: process::id(),
        reconnects: Arc::default(),
        queues: BTreeMap::new(),
    })))
}

/// Where what is done on a queue is counted. Stays for as long as the process does, for counts must not go back.
#[must_use]
pub fn of(keys: &QueueKeys) -> Arc<Activity> {
    with_registry(|registry| {
        let found = registry.queues.entry(keys.base().to_owned());
        Arc::clone(found.or_insert_with(|| Arc::new(Activity::new())))
    })
}

/// Where connections are counted that were made anew.
pub(crate) fn reconnects() -> Arc<AtomicU64> {
    with_registry(|registry| Arc::clone(&registry.reconnects))
}

/// How many connections were made anew, and the figures of every queue that was used here, by name.
#[must_use]
pub fn read() -> (u64, Vec<Figures>) {
    with_registry(|registry| {
        let figures = registry.queues.iter().map(|(base, activity)| {
            let (counts, times) = activity.read();
            let (prefix, queue) = base
                .strip_suffix(':')
                .and_then(|base| base.rsplit_once(':'))
                .unwrap_or_default();
            Figures {
                prefix: prefix.to_owned(),
                queue: queue.to_owned(),
                counts,
                times,
            }
        });
        (registry.reconnects.load(Relaxed), figures.collect())
    })
}

impl Activity {
    /// Adds to a count.
    pub(crate) fn count(count: &AtomicU64, more: usize) {
        count.fetch_add(more as u64, Relaxed);
    }

    /// A processor took so long for a job that its worker has had for so long.
    pub(crate) fn note_run(&self, held: Duration, ran: Duration) {
        self.handover.observe(held.saturating_sub(ran));
        self.run.observe(ran);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_class_that_has_room_for_it() {
        let histogram = Histogram::new();
        for micros in [0, 99, 100, 101, 3_600_000_000, 3_600_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let times = histogram.read();
        assert_eq!(times.micros, 7_200_000_301);
        let filled: Vec<(usize, u64)> = times.classes.into_iter().enumerate().collect();
        let filled: Vec<_> = filled.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0, 3), (1, 1), (19, 1), (20, 1)]);
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn queues_are_told_apart_by_prefix_and_name() {
        let keys = QueueKeys::new("telemetry:test", "q");
        Activity::count(&of(&keys).added, 2);
        Activity::count(&of(&QueueKeys::new("telemetry", "q")).added, 1);
        Activity::count(&of(&keys).added, 3);
        let (_, figures) = read();
        let found: Vec<_> = figures
            .iter()
            .filter(|figures| figures.prefix.starts_with("telemetry"))
            .map(|figures| {
                (
                    figures.prefix.as_str(),
                    figures.queue.as_str(),
                    figures.counts[0],
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("telemetry", "q", ("added", 1)),
                ("telemetry:test", "q", ("added", 5))
            ]
        );
    }
}
