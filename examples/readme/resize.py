# The second one.
import toromq
from toromq.sync import Worker

def resize(job):                      # runs in a thread; the job's methods block
    job.log(f"resizing {job.data['path']}")
    ...

toromq.run(Worker("images", resize, concurrency=8))    # until SIGINT or SIGTERM; jobs in flight end first
