// Node BullMQ as a peer of the benchmark: the same requests and answers as ../driver.py.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue, QueueEvents, Worker } from 'bullmq';

const PAYLOAD = { user: 123456, email: 'somebody@example.com', template: 'welcome', params: { lang: 'en', n: 1 } };

const require = createRequire(import.meta.url);
const now = () => Number(process.hrtime.bigint()) / 1e9;
const cpuNow = () => (process.cpuUsage().user + process.cpuUsage().system) / 1e6;
const connection = url => {
  const { hostname, port } = new URL(url);
  return { host: hostname, port: Number(port), maxRetriesPerRequest: null };
};

let running;

const requests = {
  async hello() {
    const versions = { Node: process.versions.node };
    for (const name of ['bullmq', 'ioredis']) versions[name] = require(`${name}/package.json`).version;
    return { versions };
  },

  async add({ url, queue: name, jobs, at_once = 1, size = 1, every = 0 }) {
    const queue = new Queue(name, { connection: connection(url) });
    const ids = [(await queue.add('job', PAYLOAD)).id]; // untimed: it connects
    const times = [];
    const cpu = cpuNow();
    const begun = now();
    const adder = async () => {
      for (let n = 0; n < Math.floor(jobs / at_once / size); n++) {
        if (every) await sleep(Math.max(0, (begun + (n + 1) * every - now()) * 1000));
        times.push(now());
        if (size === 1) {
          ids.push((await queue.add('job', PAYLOAD)).id);
        } else {
          const added = await queue.addBulk(Array(size).fill({ name: 'job', data: PAYLOAD }));
          for (const job of added) ids.push(job.id);
        }
      }
    };
    await Promise.all(Array.from({ length: at_once }, adder));
    const answer = { seconds: now() - begun, cpu: cpuNow() - cpu, ids, times };
    await queue.close();
    return answer;
  },

  async start({ url, queue, concurrency }) {
    const ids = [];
    const times = [];
    const cpu = cpuNow();
    const process = async job => {
      times.push(now());
      ids.push(job.id);
    };
    const worker = new Worker(queue, process, { connection: connection(url), concurrency });
    worker.on('error', error => console.error(error));
    running = { worker, ids, times, cpu };
    return {};
  },

  async stop() {
    const { worker, ids, times } = running;
    const cpu = cpuNow() - running.cpu;
    await worker.close();
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
