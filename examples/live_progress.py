"""Progress of jobs, live on a web page: the events of a queue as server-sent events, with Starlette.

pip install starlette uvicorn
python examples/live_progress.py            then open http://127.0.0.1:8000

All browsers share one reader of the queue's events. Each has a loop of its own over them, so that a slow one holds up
nobody; and a browser that was away says which event it saw last, and gets what happened since.
"""

import argparse
import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from toromq import ConfigurationError, Job, Queue, QueueEvents, Worker
from toromq.events import CompletedEvent, FailedEvent, ProgressEvent, QueueEvent

REDIS = os.environ.get("TOROMQ_URL", "embedded:.toromq")
PAGE = """<!doctype html><title>Videos</title>
<button onclick="fetch('/videos', {method: 'POST'})">Convert a video</button> <div id="jobs"></div>
<script>
const line = id => document.getElementById(id) ??
  document.getElementById('jobs').appendChild(Object.assign(document.createElement('p'), {id}));
const source = new EventSource('/events');
for (const kind of ['progress', 'completed', 'failed'])
  source.addEventListener(kind, message => {
    const said = JSON.parse(message.data);
    line(said.job).textContent = `${said.job}: ${kind} ${said.value}`;
  });
</script>"""


async def convert(job: Job[Any, str]) -> str:
    for percent in (25, 50, 75, 100):
        await asyncio.sleep(job.data["seconds"] / 4)
        await job.update_progress(percent)
    return f"{job.id}.mp4"


def message(event: QueueEvent[str]) -> str | None:
    """An event as a browser gets it; None for those that no page shows."""
    value: Any
    match event:
        case ProgressEvent():
            value = event.data
        case CompletedEvent():
            value = event.returnvalue
        case FailedEvent():
            value = event.failed_reason
        case _:
            return None
    return f"id: {event.id}\nevent: {event.event}\ndata: {json.dumps({'job': event.job_id, 'value': value})}\n\n"


async def page(request: Request) -> Response:
    return HTMLResponse(PAGE)


async def add_video(request: Request) -> Response:
    job = await request.app.state.queue.add("video", {"seconds": float(request.query_params.get("seconds", 4))})
    return JSONResponse({"job": job.id}, 202)


async def follow(request: Request) -> Response:
    events: QueueEvents[str] = request.app.state.events
    seen = request.headers.get("last-event-id")
    try:
        loop = events.after(seen) if seen else aiter(events)
    except ConfigurationError as error:
        return Response(str(error), 400)

    async def messages() -> AsyncIterator[str]:
        yield ": listening\n\n"
        async for event in loop:
            if said := message(event):
                yield said

    return StreamingResponse(messages(), media_type="text/event-stream", headers={"cache-control": "no-store"})


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with (
        Queue("videos", connection=REDIS) as app.state.queue,
        QueueEvents[str]("videos", connection=REDIS) as app.state.events,
        # In a program of its own where there is more to do.
        Worker("videos", convert, connection=REDIS, concurrency=4),
    ):
        yield


app = Starlette(
    lifespan=lifespan,
    routes=[Route("/", page), Route("/videos", add_video, methods=["POST"]), Route("/events", follow)],
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    # Browsers never close their streams by themselves.
    uvicorn.run(app, port=parser.parse_args().port, timeout_graceful_shutdown=1)
