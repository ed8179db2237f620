//! The engine without Python, as a peer of the benchmark: the same requests and answers as `bench/peers/driver.py`.
//!
//! Its worker ends each job as soon as it gets it, so what it reaches is what our scripts and the engine allow.
#![allow(clippy::print_stdout)]

use std::{
    error::Error,
    io::{self, BufRead},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, Timespec, clock_gettime};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use toromq_core::{
    connection::{Address, ConnectionOptions, ConnectionSettings},
    job::JobRecord,
    keys::QueueKeys,
    link::Link,
    queue::{NewJob, Queue},
    worker::{Closing, Failed, JobOutcome, Sink, Worker, WorkerSettings},
};

type Failure = Box<dyn Error + Send + Sync>;

const PAYLOAD: &[u8] = br#"{"user":123456,"email":"somebody@example.com","template":"welcome","params":{"lang":"en","n":1}}"#;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // As many as the extension module gives it.
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut running: Option<Running> = None;
    for line in io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = match request["do"].as_str() {
            Some("hello") => Ok(json!({"versions": {"engine": env!("CARGO_PKG_VERSION")}})),
            Some("add") => runtime.block_on(add(&request)),
            Some("start") => runtime
                .block_on(async { Running::start(&request) })
                .map(|worker| {
                    running = Some(worker);
                    json!({})
                }),
            Some("stop") => running
                .take()
                .map_or_else(|| Err("no worker runs".into()), |worker| worker.stop()),
            _ => Err("unknown request".into()),
        };
        println!(
            "{}",
            answer.unwrap_or_else(|error| json!({"error": error.to_string()}))
        );
    }
    Ok(())
}

async fn add(request: &Value) -> Result<Value, Failure> {
    let (settings, name) = (connection(request)?, text(&request["queue"])?);
    let number = |field: &str, otherwise| request[field].as_u64().unwrap_or(otherwise);
    let (jobs, at_once, size) = (number("jobs", 0), number("at_once", 1), number("size", 1));
    let every = request["every"].as_f64();
    let link = Arc::new(Link::new(&settings));
    let queue = Arc::new(Queue::new(
        link,
        QueueKeys::new("bull", &name),
        "bench".to_owned(),
        None,
    ));
    // Untimed: it connects.
    let mut ids = add_some(&queue, 1).await?;
    if let Some(every) = every {
        return add_every(&queue, jobs, Duration::from_secs_f64(every), ids).await;
    }
    let (cpu, begun) = (cpu_seconds(), monotonic());
    let adders: Vec<_> = (0..at_once)
        .map(|_| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..jobs / at_once / size {
                    ids.extend(add_some(&queue, size).await?);
                }
                Ok::<_, Failure>(ids)
            })
        })
        .collect();
    for adder in adders {
        ids.extend(adder.await??);
    }
    let (seconds, cpu) = (monotonic() - begun, cpu_seconds() - cpu);
    Ok(json!({"seconds": seconds, "cpu": cpu, "ids": ids, "times": []}))
}

/// Adds jobs at fixed times, and notes when each call was made.
async fn add_every(
    queue: &Queue,
    jobs: u64,
    every: Duration,
    mut ids: Vec<String>,
) -> Result<Value, Failure> {
    let mut due = tokio::time::interval(every);
    due.tick().await;
    let mut times = Vec::new();
    for _ in 0..jobs {
        due.tick().await;
        times.push(monotonic());
        ids.extend(add_some(queue, 1).await?);
    }
    Ok(json!({"seconds": 0, "cpu": 0, "ids": ids, "times": times}))
}

async fn add_some(queue: &Queue, count: u64) -> Result<Vec<String>, Failure> {
    let timestamp = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let job = NewJob {
        name: "job".to_owned(),
        data: PAYLOAD.to_vec(),
        opts: br#"{"attempts":0}"#.to_vec(),
        timestamp,
        ..NewJob::default()
    };
    let jobs = (0..count).map(|_| job.clone()).collect();
    let mut ids = Vec::new();
    for added in queue.add(jobs).await? {
        ids.push(added?.id);
    }
    Ok(ids)
}

/// A worker, and what it has begun.
struct Running {
    worker: Arc<Worker>,
    begun: Arc<Mutex<Vec<(String, f64)>>>,
    closed: mpsc::Receiver<()>,
    cpu: f64,
}

impl Running {
    fn start(request: &Value) -> Result<Self, Failure> {
        let settings = connection(request)?;
        let [queue] = request["queues"].as_array().map_or(&[][..], Vec::as_slice) else {
            return Err("one queue is what it can do".into());
        };
        let keys = QueueKeys::new("bull", &text(queue)?);
        let concurrency = usize::try_from(request["concurrency"].as_u64().unwrap_or(1))?;
        let begun = Arc::new(Mutex::new(Vec::new()));
        let (sender, closed) = mpsc::channel();
        let (jobs, mut run) = unbounded_channel::<Vec<Arc<JobRecord>>>();
        let cpu = cpu_seconds();
        let sink = Arc::new(Immediate {
            jobs,
            closed: sender,
        });
        let worker = Arc::new(Worker::start(&settings, keys, defaults(concurrency), sink));
        let (ours, noted) = (Arc::clone(&worker), Arc::clone(&begun));
        // A task beside the engine's own: no other thread has to be woken, as nothing here takes time.
        tokio::spawn(async move {
            while let Some(jobs) = run.recv().await {
                for job in jobs {
                    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    noted.push((job.id.clone(), monotonic()));
                    drop(noted);
                    let outcome = JobOutcome::Completed {
                        returnvalue: b"null".to_vec(),
                        watched: false,
                    };
                    let run = (job.id.clone(), job.token.clone());
                    ours.finish(run.0, run.1, outcome, Some(Duration::ZERO));
                }
            }
        });
        Ok(Self {
            worker,
            begun,
            closed,
            cpu,
        })
    }

    fn stop(self) -> Result<Value, Failure> {
        let cpu = cpu_seconds() - self.cpu;
        self.worker.close(Closing::Graceful);
        self.closed.recv_timeout(Duration::from_secs(20))?;
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<_> = begun.iter().map(|(id, _)| id).collect();
        let times: Vec<_> = begun.iter().map(|(_, time)| time).collect();
        Ok(json!({"cpu": cpu, "ids": ids, "times": times}))
    }
}

/// The defaults of the Python package.
fn defaults(concurrency: usize) -> WorkerSettings {
    WorkerSettings {
        name: String::new(),
        concurrency,
        lock_duration: 30_000,
        lock_renew_time: 15_000,
        skip_lock_renewal: false,
        stalled_interval: 30_000,
        max_stalled_count: 1,
        skip_stalled_check: false,
        max_started_attempts: None,
        drain_delay: 5.0,
        longest_drain_delay: 10.0,
        limiter: None,
        maximum_rate_limit_delay: 30_000,
        run_retry_delay: 15_000,
        metrics: None,
        paused: false,
        remove_on_complete: String::new(),
        remove_on_fail: String::new(),
    }
}

struct Immediate {
    jobs: UnboundedSender<Vec<Arc<JobRecord>>>,
    closed: mpsc::Sender<()>,
}

impl Sink for Immediate {
    fn jobs(&self, jobs: Vec<Arc<JobRecord>>) {
        let _ = self.jobs.send(jobs);
    }
    fn closed(&self) {
        let _ = self.closed.send(());
    }
    fn lock_lost(&self, _: Arc<JobRecord>) -> bool {
        false
    }
    fn ready(&self) {}
    fn completed(&self, _: &str, _: &str, _: i64) {}
    fn failed(&self, _: Arc<JobRecord>, _: Failed) {}
    fn locks_renewed(&self, _: Vec<String>) {}
    fn lock_renewal_failed(&self, _: Vec<String>) {}
    fn dropped(&self, _: &str, _: &str) {}
    fn stalled(&self, _: &str) {}
    fn drained(&self) {}
    fn error(&self, _: toromq_core::error::Error) {}
}

fn connection(request: &Value) -> Result<ConnectionSettings, Failure> {
    let url = text(&request["url"])?;
    let address = url
        .strip_prefix("redis://")
        .and_then(|rest| rest.strip_suffix("/0"));
    let (host, port) = address
        .and_then(|address| address.split_once(':'))
        .ok_or("what URL is that?")?;
    Ok(ConnectionSettings::new(ConnectionOptions {
        address: Address::Tcp(host.to_owned(), port.parse()?, None),
        db: 0,
        username: None,
        password: None,
        client_name: None,
        connect_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_secs(30),
    })?)
}

fn text(value: &Value) -> Result<String, Failure> {
    Ok(value.as_str().ok_or("a text is missing")?.to_owned())
}

/// The clock that all processes of the machine share. The standard library's has no beginning to count from.
fn monotonic() -> f64 {
    seconds(clock_gettime(ClockId::Monotonic))
}

fn cpu_seconds() -> f64 {
    seconds(clock_gettime(ClockId::ProcessCPUTime))
}

#[allow(clippy::cast_precision_loss)] // of what is measured
fn seconds(time: Timespec) -> f64 {
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
