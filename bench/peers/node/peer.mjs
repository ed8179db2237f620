// Node BullMQ as a peer of the benchmark: the same requests and answers as ../driver.py.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { FlowProducer, Queue, QueueEvents, Worker } from 'bullmq';

const PAYLOAD = { user: 123456, email: 'somebody@example.com', template: 'welcome', params: { lang: 'en', n: 1 } };
const LARGE = { records: Array(100).fill(PAYLOAD) };

const require = createRequire(import.meta.url);
const now = () => Number(process.hrtime.bigint()) / 1e9;
const cpuNow = () => (process.cpuUsage().user + process.cpuUsage().system) / 1e6;
const connection = url => {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port), maxRetriesPerRequest: null };
};

let running;

const addFlow = async (url, queueName, children) => {
  const producer = new FlowProducer({ connection: connection(url) });
  await producer.waitUntilReady();
  const below = Array.from({ length: children }, () => ({ name: 'child', queueName, data: PAYLOAD }));
  const called = now();
  const node = await producer.add({ name: 'parent', queueName, data: PAYLOAD, children: below });
  const seconds = now() - called;
  await producer.close();
  return { called, seconds, ids: [node.job.id, ...(node.children ?? []).map(child => child.job.id)] };
};

const requests = {
  async hello() {
    const versions = { Node: process.versions.node };
    for (const name of ['bullmq', 'ioredis']) versions[name] = require(`${name}/package.json`).version;
    return { versions };
  },

  async add(request) {
    const { url, queue: name, jobs, at_once = 1, size = 1, every = 0, data = 'small' } = request;
    const { delays = null, priorities = 0, attempts = 0 } = request;
    const content = data === 'large' ? LARGE : PAYLOAD;
    const options = n => ({
      ...(delays ? { delay: Math.round(delays[0] + n * delays[1]) } : {}),
      ...(priorities ? { priority: 1 + (n % priorities) } : {}),
      ...(attempts ? { attempts } : {}),
    });
    const each = Array.from({ length: jobs }, (_, n) => ({ name: 'job', data: content, opts: options(n) }));
    const queue = new Queue(name, { connection: connection(url) });
    const ids = [(await queue.add('job', content, options(0))).id]; // untimed: it connects
    const times = [];
    const cpu = cpuNow();
    const begun = now();
    const adder = async (_, first) => {
      for (let n = 0; n < Math.floor(jobs / at_once / size); n++) {
        if (every) await sleep(Math.max(0, (begun + (n + 1) * every - now()) * 1000));
        times.push(now());
        if (size === 1) {
          ids.push((await queue.add('job', content)).id);
        } else {
          const from = (n * at_once + first) * size;
          const added = await queue.addBulk(each.slice(from, from + size));
          for (const job of added) ids.push(job.id);
        }
      }
    };
    await Promise.all(Array.from({ length: at_once }, adder));
    const answer = { seconds: now() - begun, cpu: cpuNow() - cpu, ids, times };
    await queue.close();
    return answer;
  },

  async flow({ url, queue, children }) {
    await addFlow(url, `${queue}-before`, 1); // untimed
    return addFlow(url, queue, children);
  },

  async start({ url, queues, concurrency, task = 'noop', limit = null }) {
    const ids = [];
    const times = [];
    const seen = new Set();
    const cpu = cpuNow();
    const begin = job => {
      times.push(now());
      ids.push(job.id);
    };
    const processors = {
      noop: async job => begin(job),
      data: async job => {
        begin(job);
        return { records: job.data.records.slice(0, 10) };
      },
      sleep: async job => {
        begin(job);
        await sleep(10);
      },
      retry: async job => {
        begin(job);
        if (seen.has(job.id)) return;
        seen.add(job.id);
        throw new Error('the first attempt fails');
      },
      cpu: async job => {
        begin(job);
        const end = performance.now() + 0.05;
        while (performance.now() < end);
      },
    };
    const limiter = limit ? { limiter: { max: limit[0], duration: limit[1] } } : {};
    const workers = queues.map(
      queue => new Worker(queue, processors[task], { connection: connection(url), concurrency, ...limiter }),
    );
    for (const worker of workers) worker.on('error', error => console.error(error));
    running = { workers, ids, times, cpu };
    return {};
  },

  async stop() {
    const { workers, ids, times } = running;
    const cpu = cpuNow() - running.cpu;
    await Promise.all(workers.map(worker => worker.close()));
    return { cpu, ids, times };
  },

  async listen({ url, queue, jobs }) {
    const events = new QueueEvents(queue, { connection: connection(url), lastEventId: '0-0', autorun: false });
    let heard = 0;
    const cpu = cpuNow();
    const begun = now();
    await new Promise((resolve, reject) => {
      events.on('completed', () => {
        if (++heard === jobs) resolve();
      });
      events.on('error', reject);
      events.run().catch(reject);
    });
    const answer = { seconds: now() - begun, cpu: cpuNow() - cpu, heard };
    await events.close();
    return answer;
  },
};

// Whatever a library prints must not get among the answers.
for (const name of ['log', 'info', 'warn', 'debug']) console[name] = console.error;

for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...fields } = JSON.parse(line);
  const answer = await requests[what](fields).catch(error => ({ error: String(error) }));
  process.stdout.write(JSON.stringify(answer) + '\n');
}
process.exit(0);
