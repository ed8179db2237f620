// A new process: imports BullMQ, adds one job, and says when each was done. Arguments: the URL and the queue.

const begun = performance.now();
const { Queue } = await import('bullmq');
const imported = performance.now();

const [url, name] = process.argv.slice(2);
const { hostname, port } = new URL(url);
const queue = new Queue(name, { connection: { host: hostname, port: Number(port) } });
await queue.add('job', { user: 123456 });
const added = performance.now();
console.log(JSON.stringify({ import: (imported - begun) / 1000, added: (added - begun) / 1000, threads: 0 }));
await queue.close();
