// The Node side of the interop tests: BullMQ as a black box behind a line protocol.
//
// One JSON command per line arrives on stdin: {"id": 1, "cmd": "call", ...}. Every command gets exactly one
// answer on stdout, {"id": 1, "ok": ...} or {"id": 1, "error": {"name", "message", "code"}}, in the order in
// which the work ends. Lines without an id are notifications: {"event": "worker", ...}.
//
// Values JSON cannot spell are written as one-member objects in arguments: {"$undefined": true},
// {"$number": "NaN"}, {"$date": 1700000000000}.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import {
  DelayedError,
  FlowProducer,
  Job,
  MetricsTime,
  PRIORITY_LIMIT,
  Queue,
  QueueEvents,
  QueueEventsProducer,
  RateLimitError,
  UnrecoverableError,
  WaitingChildrenError,
  WaitingError,
  Worker,
} from 'bullmq';
import { CronExpressionParser } from 'cron-parser';

const require = createRequire(import.meta.url);

// Stdout belongs to the protocol; whatever a library prints goes to stderr.
for (const name of ['log', 'info', 'warn', 'debug', 'trace']) {
  console[name] = (...args) => console.error(...args);
}

const defaults = { connection: undefined, prefix: undefined };
const handles = new Map();
const heldJobs = new Map();
const gates = new Map();

function send(message) {
  process.stdout.write(JSON.stringify(message) + '\n');
}

function notify(event, fields) {
  send({ event, ...fields });
}

function describeError(error) {
  if (error === null || typeof error !== 'object') {
    return { name: typeof error, message: String(error), code: null };
  }
  return { name: error.name ?? 'Error', message: error.message ?? '', code: error.code ?? null };
}

// ---------------------------------------------------------------------------------------------------------
// Values in and out

function decode(value) {
  if (Array.isArray(value)) {
    return value.map(decode);
  }
  if (value !== null && typeof value === 'object') {
    const members = Object.keys(value);
    if (members.length === 1) {
      if (members[0] === '$undefined') return undefined;
      if (members[0] === '$number') return Number(value.$number);
      if (members[0] === '$date') return new Date(value.$date);
    }
    return Object.fromEntries(members.map(member => [member, decode(value[member])]));
  }
  return value;
}

async function encode(value, withState) {
  if (value === undefined) return null;
  if (value instanceof Job) {
    const fields = { ...value.toJSON() };
    if (value.token !== undefined) fields.token = value.token;
    if (withState) fields.state = await value.getState();
    return fields;
  }
  if (value instanceof Error) return describeError(value);
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Map) return encode(Object.fromEntries(value), withState);
  if (value instanceof Set) return encode([...value], withState);
  if (Array.isArray(value)) return Promise.all(value.map(item => encode(item, withState)));
  if (typeof value === 'bigint') return value.toString();
  if (typeof value === 'object' && value !== null && typeof value.toJSON !== 'function') {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined && typeof item !== 'function');
    return Object.fromEntries(await Promise.all(entries.map(async ([key, item]) => [key, await encode(item, withState)])));
  }
  return value;
}

// ---------------------------------------------------------------------------------------------------------
// Scripted processors

// A gate is one promise per worker and job; it may be opened before the processor has reached it.
function gate(handle, jobId) {
  const key = `${handle}\n${jobId}`;
  if (!gates.has(key)) {
    const entry = { key };
    entry.promise = new Promise((resolve, reject) => {
      entry.resolve = resolve;
      entry.reject = reject;
    });
    entry.promise.catch(() => {});
    gates.set(key, entry);
  }
  return gates.get(key);
}

// What a job's data says wins over what the worker was started with.
function setting(job, script, name, fallback) {
  if (job.data !== null && typeof job.data === 'object' && name in job.data) return job.data[name];
  return name in script ? script[name] : fallback;
}

const processors = {
  echo: async job => job.data,
  value: async (job, script) => setting(job, script, 'value'),
  undefined: async () => undefined,
  fail: async (job, script) => {
    throw new Error(setting(job, script, 'message', 'scripted failure'));
  },
  fail_times: async (job, script) => {
    const attempt = job.attemptsMade + 1;
    if (attempt <= setting(job, script, 'times', 1)) throw new Error(`failure ${attempt}`);
    return setting(job, script, 'value', null);
  },
  unrecoverable: async (job, script) => {
    throw new UnrecoverableError(setting(job, script, 'message', 'scripted unrecoverable failure'));
  },
  throw_text: async (job, script) => {
    throw setting(job, script, 'message', 'scripted text');
  },
  sleep: async (job, script) => {
    await new Promise(resolve => setTimeout(resolve, setting(job, script, 'ms', 0)));
    return setting(job, script, 'value', null);
  },
  progress: async (job, script) => {
    for (const value of setting(job, script, 'progress', [])) await job.updateProgress(value);
    return setting(job, script, 'value', null);
  },
  log: async (job, script) => {
    const counts = [];
    for (const row of setting(job, script, 'rows', [])) counts.push(await job.log(row));
    return counts;
  },
  update_data: async (job, script) => {
    // Both are read first: the update replaces the data that holds them.
    const next = setting(job, script, 'next', null);
    const fail = setting(job, script, 'fail', false);
    if (job.attemptsMade === 0) {
      await job.updateData(next);
      if (fail) throw new Error('data updated, try again');
    }
    return job.data;
  },
  // Puts the job somewhere else at its first start.
  move: async (job, script) => {
    const to = job.attemptsStarted > 1 ? 'nowhere' : setting(job, script, 'to');
    if (to === 'delayed') {
      await job.moveToDelayed(Date.now() + setting(job, script, 'ms', 0), job.token);
      throw new DelayedError();
    }
    if (to === 'wait') {
      await job.moveToWait(job.token);
      throw new WaitingError();
    }
    if (to === 'waiting-children' && (await job.moveToWaitingChildren(job.token))) throw new WaitingChildrenError();
    return job.attemptsStarted;
  },
  // What a parent learns of its children.
  children: async job => {
    const values = Object.values(await job.getChildrenValues());
    const ignored = Object.values(await job.getIgnoredChildrenFailures());
    const texts = values.map(value => JSON.stringify(value)).sort();
    return { values: texts.map(text => JSON.parse(text)), ignored: ignored.sort() };
  },
  // Adds children of its own at its first start, and waits for them.
  have_children: async (job, script) => {
    if (job.attemptsStarted === 1) {
      const queue = new Queue(job.queueName, { connection: defaults.connection, prefix: job.prefix });
      const parent = { id: job.id, queue: job.queueQualifiedName };
      for (let n = 0; n < setting(job, script, 'count', 1); n++) {
        await queue.add('value', { value: n }, { parent, priority: n });
      }
      await queue.close();
      if (await job.moveToWaitingChildren(job.token)) throw new WaitingChildrenError();
    }
    return processors.children(job);
  },
  // Waits for all its children, then ends as its data says.
  tree: async job => {
    await new Promise(resolve => setTimeout(resolve, job.data.ms));
    if (await job.moveToWaitingChildren(job.token)) throw new WaitingChildrenError();
    if (job.data.fatal) throw new UnrecoverableError(`${job.id} is fatal`);
    if (job.attemptsMade < job.data.fails) throw new Error(`${job.id} failed ${job.attemptsMade + 1} times`);
    return `result of ${job.id}`;
  },
  gate: async (job, script, handle) => {
    notify('gate', { handle, jobId: job.id });
    const entry = gate(handle, job.id);
    try {
      return await entry.promise;
    } finally {
      gates.delete(entry.key);
    }
  },
  // Says that it ran into a limit for so many milliseconds; 0 says it without setting one.
  rate_limit: async (job, script, handle) => {
    if (job.attemptsStarted <= setting(job, script, 'times', 1)) {
      const ms = setting(job, script, 'ms', 0);
      if (ms > 0) await handleOf(handle).rateLimit(ms);
      throw new RateLimitError();
    }
    return setting(job, script, 'value', null);
  },
  block_forever: () => new Promise(() => {}),
  until_cancelled: (job, script, handle, signal) =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error(String(signal.reason))))),
  by_name: (job, script, handle, signal) => runScript({ ...script, name: job.name }, job, handle, signal),
};

function runScript(script, job, handle, signal) {
  const processor = processors[script.name];
  if (processor === undefined) throw new Error(`no scripted processor is called ${script.name}`);
  return processor(job, script, handle, signal);
}

function processorFor(handle, script) {
  return async (job, token, signal) => {
    notify('processor', {
      handle,
      jobId: job.id,
      name: job.name,
      data: job.data === undefined ? null : job.data,
      attemptsMade: job.attemptsMade,
      attemptsStarted: job.attemptsStarted,
      token,
    });
    return runScript(script, job, handle, signal);
  };
}

// A strategy is a list of delays, one per attempt; the last one is used for all later attempts.
function backoffStrategyFor(handle, delays) {
  return (attemptsMade, type, error, job) => {
    notify('backoff', { handle, jobId: job?.id, attempt: attemptsMade, type, message: error?.message });
    return delays[Math.min(attemptsMade, delays.length) - 1];
  };
}

// ---------------------------------------------------------------------------------------------------------
// Notifications: everything an emitter says is forwarded, so that custom events come through as well

function forward(kind, handle, emitter, fieldsOf) {
  const emit = emitter.emit.bind(emitter);
  emitter.emit = (name, ...args) => {
    const fields = fieldsOf(name, args);
    if (fields !== undefined) notify(kind, { handle, name, ...fields });
    return emit(name, ...args);
  };
  // An emitter without a listener for "error" would end the process.
  emitter.on('error', () => {});
}

function jobFields(job) {
  return job instanceof Job ? { jobId: job.id, job: job.toJSON() } : { jobId: job };
}

function workerFields(name, args) {
  switch (name) {
    case 'active':
      return { ...jobFields(args[0]), prev: args[1] };
    case 'completed':
      return { ...jobFields(args[0]), result: args[1] === undefined ? null : args[1], prev: args[2] };
    case 'failed':
      return { ...jobFields(args[0]), error: describeError(args[1]), prev: args[2] };
    case 'progress':
      return { ...jobFields(args[0]), progress: args[1] };
    case 'stalled':
      return { jobId: args[0], prev: args[1] };
    case 'lockRenewalFailed':
      return { jobIds: args[0] };
    case 'locksRenewed':
      return { jobIds: args[0].jobIds };
    case 'error':
      return { error: describeError(args[0]) };
    case 'drained':
    case 'paused':
    case 'resumed':
    case 'ready':
    case 'closing':
    case 'closed':
      return {};
    default:
      return undefined;
  }
}

function queueFields(name, args) {
  if (name === 'error') return { error: describeError(args[0]) };
  if (name === 'waiting' || name === 'removed' || name === 'progress') return jobFields(args[0]);
  if (name === 'cleaned') return { jobIds: args[0], type: args[1] };
  return name === 'paused' || name === 'resumed' ? {} : undefined;
}

function streamFields(name, args) {
  if (name === 'error' && args[0] instanceof Error) return { error: describeError(args[0]) };
  // Every entry is emitted a second time as <name>:<jobId> for the waiters on one job.
  if (name === 'newListener' || name === 'removeListener' || name.includes(':')) return undefined;
  if (args.length === 1) return { fields: {}, entryId: args[0] };
  return { fields: args[0], entryId: args[1] };
}

// ---------------------------------------------------------------------------------------------------------
// Tracing: what was created with the option "telemetry" tells its spans to one exporter

let tracing;

async function startTracing() {
  if (tracing !== undefined) return tracing;
  // Only here: most tests trace nothing, and the context manager costs something.
  const [{ InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor }, { BullMQOtel }] = await Promise.all([
    import('@opentelemetry/sdk-trace-node'),
    import('bullmq-otel'),
  ]);
  const exporter = new InMemorySpanExporter();
  new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register();
  tracing = { exporter, telemetry: new BullMQOtel({ tracerName: 'peer' }) };
  return tracing;
}

// ---------------------------------------------------------------------------------------------------------
// Commands

function handleOf(name) {
  const object = handles.get(name);
  if (object === undefined) throw new Error(`no object is called ${name}`);
  return object;
}

async function jobOf(command) {
  if (command.held) {
    const job = heldJobs.get(`${command.handle}\n${command.jobId}`);
    if (job === undefined) throw new Error(`${command.handle} does not hold job ${command.jobId}`);
    return job;
  }
  const owner = handleOf(command.handle);
  const job = await Job.fromId(owner, command.jobId);
  // "unknown": also of a job that was removed after somebody had got it.
  if (job === undefined && command.unknown) return new Job(owner, 'gone', {}, {}, command.jobId);
  if (job === undefined) throw new Error(`there is no job ${command.jobId}`);
  return job;
}

async function closeAll(force) {
  const rank = object => (object instanceof Worker ? 0 : object instanceof QueueEvents ? 1 : 2);
  const open = [...handles.entries()].sort(([, left], [, right]) => rank(left) - rank(right));
  handles.clear();
  for (const [, object] of open) {
    await (object instanceof Worker ? object.close(force) : object.close());
  }
  heldJobs.clear();
  gates.clear();
  return open.length;
}

// The next times of a cron pattern as a worker finds them: each by a new search from the last. Null where the search
// gives up; a text is the reason of a refusal.
function cronFires([pattern, tz, after, count, hashSeed]) {
  const options = { tz, ...(hashSeed === null ? {} : { hashSeed }) };
  const fires = [];
  let currentDate = new Date(after);
  for (let left = count; left > 0; left -= 1) {
    let cron;
    try {
      cron = CronExpressionParser.parse(pattern, { ...options, currentDate });
    } catch (error) {
      return error.message;
    }
    try {
      currentDate = cron.next().toDate();
    } catch {
      fires.push(null);
      return fires;
    }
    fires.push(currentDate.getTime());
  }
  return fires;
}

const commands = {
  hello: async () => ({
    node: process.versions.node,
    bullmq: require('bullmq/package.json').version,
    ioredis: require('ioredis/package.json').version,
    pid: process.pid,
  }),

  constants: async () => ({ PRIORITY_LIMIT, MetricsTime }),

  cron: async ({ rows }) => rows.map(cronFires),

  // Sets the connection and the prefix of everything created from now on.
  defaults: async ({ connection, prefix }) => {
    defaults.connection = connection;
    defaults.prefix = prefix;
  },

  create: async ({ kind, handle, name, options = {}, processor, backoff_delays: backoffDelays }) => {
    if (handles.has(handle)) throw new Error(`the name ${handle} is taken`);
    const settings = { connection: defaults.connection, prefix: defaults.prefix, ...decode(options) };
    if (settings.telemetry) settings.telemetry = (await startTracing()).telemetry;
    let object;
    if (kind === 'Queue') {
      object = new Queue(name, settings);
      forward('queue', handle, object, queueFields);
    } else if (kind === 'QueueEvents') {
      object = new QueueEvents(name, { ...settings, autorun: false });
      forward('stream', handle, object, streamFields);
    } else if (kind === 'QueueEventsProducer') {
      object = new QueueEventsProducer(name, settings);
    } else if (kind === 'FlowProducer') {
      object = new FlowProducer(settings);
    } else if (kind === 'Worker') {
      if (backoffDelays !== undefined) {
        settings.settings = { ...settings.settings, backoffStrategy: backoffStrategyFor(handle, backoffDelays) };
      }
      // Started only after the listeners are in place: nothing may happen unseen.
      const autorun = settings.autorun ?? true;
      object = new Worker(name, processor === undefined ? null : processorFor(handle, processor), {
        ...settings,
        autorun: false,
      });
      forward('worker', handle, object, workerFields);
      handles.set(handle, object);
      await object.waitUntilReady();
      if (processor !== undefined && autorun) {
        object.run().catch(error => notify('worker', { handle, name: 'error', error: describeError(error) }));
      }
      return null;
    } else {
      throw new Error(`unknown kind ${kind}`);
    }
    handles.set(handle, object);
    if (object.waitUntilReady !== undefined) await object.waitUntilReady();
    if (kind === 'QueueEvents') {
      object.run().catch(error => notify('stream', { handle, name: 'error', error: describeError(error) }));
    }
    return null;
  },

  // Any method of a queue, worker, event reader or flow producer.
  call: async ({ handle, method, args = [], state = false }) => {
    const object = handleOf(handle);
    if (typeof object[method] !== 'function') throw new Error(`${handle} has no method ${method}`);
    return encode(await object[method](...decode(args)), state);
  },

  get: async ({ handle, property }) => encode(handleOf(handle)[property], false),

  // The property of an object, or with dots that of one inside it.
  set: async ({ handle, property, value }) => {
    const path = property.split('.');
    const last = path.pop();
    path.reduce((object, name) => object[name], handleOf(handle))[last] = decode(value);
  },

  // Any method of a job, looked up by id, or of one that getNextJob handed to this worker ("held").
  job: async command => {
    const job = await jobOf(command);
    const args = decode(command.args ?? []);
    if (command.method === 'moveToFailed') args[0] = new Error(args[0]);
    return encode(await job[command.method](...args), false);
  },

  next_job: async ({ handle, token, block = true }) => {
    const job = await handleOf(handle).getNextJob(token, { block });
    if (job === undefined) return null;
    heldJobs.set(`${handle}\n${job.id}`, job);
    return encode(job, false);
  },

  // Ends a job under a token, whoever fetched it; with fetchNext, answers the id of the next one that it got.
  finish: async ({ handle, jobId, token, method, value, unrecoverable = false, fetchNext = false }) => {
    const job = await jobOf({ handle, jobId, unknown: true });
    const ErrorType = unrecoverable ? UnrecoverableError : Error;
    const outcome = method === 'moveToFailed' ? new ErrorType(value) : decode(value);
    const next = await job[method](outcome, token, fetchNext);
    return Array.isArray(next) && next[0] ? next[1] : null;
  },

  wait_until_finished: async ({ handle, jobId, events, ttl }) => {
    const job = await jobOf({ handle, jobId });
    const value = await job.waitUntilFinished(handleOf(events), ttl);
    return { undefined: value === undefined, value: value === undefined ? null : value };
  },

  // The spans that have ended since the last reset.
  spans: async () =>
    (tracing?.exporter.getFinishedSpans() ?? []).map(span => ({
      name: span.name,
      kind: span.kind,
      traceId: span.spanContext().traceId,
      spanId: span.spanContext().spanId,
      parentSpanId: span.parentSpanContext?.spanId ?? null,
      attributes: span.attributes,
    })),

  open: async ({ handle, jobId, value, error }) => {
    const entry = gate(handle, jobId);
    if (error === undefined || error === null) {
      entry.resolve(decode(value));
    } else {
      entry.reject(new Error(error));
    }
  },

  close: async ({ handle, force = false }) => {
    const object = handleOf(handle);
    await (object instanceof Worker ? object.close(force) : object.close());
    handles.delete(handle);
  },

  // Back to the state after start, for the next test. Forced: jobs left behind belong to the test's own prefix.
  reset: async () => {
    const closed = await closeAll(true);
    tracing?.exporter.reset();
    return closed;
  },

  quit: async () => closeAll(true),
};

async function answer(line) {
  let command;
  try {
    command = JSON.parse(line);
  } catch (error) {
    notify('fault', { error: describeError(error) });
    return;
  }
  try {
    const run = commands[command.cmd];
    if (run === undefined) throw new Error(`unknown command ${command.cmd}`);
    const value = await run(command);
    send({ id: command.id, ok: value === undefined ? null : value });
  } catch (error) {
    send({ id: command.id, error: describeError(error) });
  }
  if (command.cmd === 'quit') process.stdout.write('', () => process.exit(0));
}

process.on('unhandledRejection', error => notify('fault', { error: describeError(error) }));

const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
lines.on('line', line => void answer(line));
// The controller is gone: leave without closing anything, like a process that was told to stop at once.
lines.on('close', () => process.exit(0));
