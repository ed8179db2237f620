"""Trees of jobs: what users write, what they get, and what the engine takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, Unpack, cast

from toromq._bridge import new_id
from toromq._guards import is_mapping
from toromq._job_fields import JobFields
from toromq._packing import packed
from toromq._payload import ANY_JSON
from toromq._tracing import carrying
from toromq.errors import ConfigurationError
from toromq.options import MISSING, JobOptions, JobState, check_prefix, check_queue_name, refuse_unknown

if TYPE_CHECKING:
    from toromq._tracing import FlowSpans
    from toromq.telemetry import Span

JobT = TypeVar("JobT", bound=JobFields[Any, Any])

_OWN = ("name", "queue_name", "data", "prefix", "children", "opts")


class FlowQueueOptions(TypedDict, total=False):
    """What the jobs of one queue have in common within a flow: options for every job that does not give its own."""

    default_job_options: JobOptions


@dataclass(slots=True, init=False)
class FlowJob:
    """A job of a flow, and the jobs below it that it waits for. A dict with the same names does as well.

    Args:
        name: the job's name.
        queue_name: the queue it goes to.
        data: anything that is JSON.
        prefix: what that queue's keys begin with; default: that of the FlowProducer.
        children: the jobs it waits for, of any queues.
        opts: its options as a dict.
        options: its options by keyword, as `Queue.add` has them; they win over those of `opts`. `parent` is for the
            topmost job of a flow alone, and puts the whole flow below a job that is there. The options
            `fail_parent_on_failure`, `continue_parent_on_failure`, `ignore_dependency_on_failure` and
            `remove_dependency_on_failure` of a child say what its parent does when the child fails for good; without
            one of them the parent goes on waiting, until the child is retried or removed.

    Example:
        >>> FlowJob("report", queue_name="reports", children=[
        ...     FlowJob("fetch", queue_name="pages", data={"region": "us"}, attempts=3),
        ...     FlowJob("fetch", queue_name="pages", data={"region": "eu"}, ignore_dependency_on_failure=True)])
    """

    name: str
    queue_name: str
    # It may be secret.
    data: Any = field(repr=False)
    prefix: str | None
    children: list[FlowJob | Mapping[str, Any]]
    opts: JobOptions

    def __init__(
        self,
        name: str,
        *,
        queue_name: str,
        data: Any = MISSING,
        prefix: str | None = None,
        children: Iterable[FlowJob | Mapping[str, Any]] = (),
        opts: JobOptions | None = None,
        **options: Unpack[JobOptions],
    ) -> None:
        """See the class. What is wrong with it is said when it is added."""
        self.name = name
        self.queue_name = queue_name
        self.data = data
        self.prefix = prefix
        self.children = children if isinstance(children, list) else list(children)
        self.opts = cast(JobOptions, {**(opts or {}), **options})


@dataclass(slots=True)
class JobNode(Generic[JobT]):
    """A job of a flow, and the jobs below it.

    Attributes:
        job: the job.
        children: the jobs it waits for, or waited for.
        state: the state it was in, where states were asked for.
        children_count: how many children it has, read or not, where states were asked for.
    """

    job: JobT
    children: list[JobNode[JobT]] = field(default_factory=list[Any])
    state: JobState | None = None
    children_count: int | None = None


@dataclass(slots=True)
class _Given:
    """A job of a flow, checked, on its way to the engine."""

    source: Any
    node: FlowJob
    place: str
    prefix: str
    job_id: str = ""
    made: bool = True
    parent: _Given | None = None
    children: list[_Given] = field(default_factory=list[Any])
    packed: tuple[Any, ...] = ()
    span: Span | None = None
    _as_parent: dict[str, str] | None = None

    def as_parent(self) -> dict[str, str]:
        """The option `parent` of its children, made once for all of them."""
        if self._as_parent is None:
            self._as_parent = {"id": self.job_id, "queue": f"{self.prefix}:{self.node.queue_name}"}
        return self._as_parent


class PackedFlows:
    """Trees as the engine takes them, all checked: their jobs level by level."""

    def __init__(
        self,
        flows: Iterable[tuple[str, Any]],
        prefix: str,
        queues_options: Mapping[str, FlowQueueOptions] | None,
        spans: FlowSpans | None = None,
    ) -> None:
        """`flows` are pairs of a place, for errors, and a tree; `spans` traces their jobs.

        Raises:
            ConfigurationError, SerializationError, TypeError: a job can't be added; the message gives its place.
        """
        self._prefix = prefix
        self._spans = spans
        self._defaults = _defaults_of(queues_options)
        self.roots = [self._checked(flow, place) for place, flow in flows]
        self._places: list[_Given] = []
        for root in self.roots:
            self._check_ids(root)
        level = self.roots
        while level:
            for given in level:
                self._pack(given)
            self._places += level
            level = [child for given in level for child in given.children]
        numbers: dict[tuple[str, str], int] = {}
        self.nodes = [
            (
                numbers.setdefault((given.prefix, given.node.queue_name), len(numbers)),
                given.place or "flow",
                given.made,
                bool(given.children),
                given.packed,
            )
            for given in self._places
        ]
        self.queues = list(numbers)

    def _checked(self, flow: Any, place: str) -> _Given:
        """A tree of what was given, with every shape looked at."""
        root = self._given(flow, place, None)
        waiting = [root]
        while waiting:
            given = waiting.pop()
            if given.node.children:
                dot = f"{given.place}." if given.place else ""
                children = enumerate(given.node.children)
                given.children = [self._given(child, f"{dot}children[{n}]", given) for n, child in children]
                waiting += reversed(given.children)
        return root

    def _given(self, source: Any, place: str, parent: _Given | None) -> _Given:
        dot = f"{place}." if place else ""
        node = source
        if not isinstance(node, FlowJob) and is_mapping(node):
            refuse_unknown(node, frozenset(_OWN), f"{place or 'flow'}: a FlowJob")
            missing = [name for name in ("name", "queue_name") if name not in node]
            if missing:
                raise ConfigurationError(f"{dot}{missing[0]}: missing")
            _check_parts(node.get("children"), node.get("opts"), dot)
            parts: dict[str, Any] = {**node, "children": node.get("children") or ()}
            node = FlowJob(**parts)
        if not isinstance(node, FlowJob):
            raise ConfigurationError(f"{place or 'flow'}: got {node!r}; allowed is a FlowJob, or a dict like one")
        _check_parts(node.children, node.opts, dot)
        try:
            check_queue_name(node.queue_name)
            prefix = self._prefix if node.prefix is None else check_prefix(node.prefix)
        except ConfigurationError as error:
            raise ConfigurationError(f"{dot}{error}") from None
        above = parent
        while above is not None:
            if above.source is source:
                raise ConfigurationError(f"{place}: the same FlowJob as {above.place or 'the flow'} above it")
            above = above.parent
        return _Given(source, node, place, prefix, parent=parent)

    def _check_ids(self, root: _Given) -> None:
        """Give an id to every job, and refuse one that comes twice in a flow."""
        known: dict[tuple[str, str, str], _Given] = {}
        for given in _walk(root):
            own: Any = given.node.opts.get("job_id") or self._defaults.get(given.node.queue_name, {}).get("job_id")
            given.made = not own
            given.job_id = own or new_id()
            if isinstance(own, str):
                key = (given.prefix, given.node.queue_name, own)
                other = known.setdefault(key, given)
                if other is not given:
                    raise ConfigurationError(
                        f"{given.place}.job_id: {own!r} is that of {other.place or 'the flow'} as well; a job has one "
                        "place in a flow"
                    )

    def _pack(self, given: _Given) -> None:
        node, dot = given.node, f"{given.place}." if given.place else ""
        defaults = self._defaults.get(node.queue_name, {})
        options: dict[str, Any] = {**node.opts}
        related = options.get("deduplication") or defaults.get("deduplication")
        if related and (given.children or given.parent is not None):
            raise ConfigurationError(
                f"{dot}deduplication: only a job without parent and children may give way to another"
            )
        if given.parent is not None:
            if options.get("parent") is not None:
                raise ConfigurationError(f"{dot}parent: its parent is the job above it")
            options["parent"] = given.parent.as_parent()
        if self._spans is not None:
            above_it = None if given.parent is None else given.parent.span
            given.span = self._spans.begin(node.queue_name, str(node.name), given.job_id, above_it)
            options = {**carrying(options, defaults, given.span.context(), overwrite=False)}
        data = b"{}" if node.data is MISSING else ANY_JSON.encode(node.data, f"{dot}data")
        job = packed(node.name, data, options, defaults, dot)
        given.packed = (given.job_id, *job[1:])

    def trees(self, outcomes: list[tuple[str, bool]], job_of: Callable[..., JobT]) -> list[JobNode[JobT]]:
        """What was added, tree by tree; `job_of` makes a job from its prefix, queue name, outcome and packed form."""
        made: dict[int, JobNode[JobT]] = {}
        for given, outcome in zip(self._places, outcomes, strict=True):
            node = made[id(given)] = JobNode(job_of(given.prefix, given.node.queue_name, outcome, given.packed))
            if given.parent is not None:
                made[id(given.parent)].children.append(node)
        return [made[id(root)] for root in self.roots]


def _walk(root: _Given) -> Iterator[_Given]:
    """A tree's jobs, each before those below it."""
    waiting = [root]
    while waiting:
        given = waiting.pop()
        yield given
        waiting += reversed(given.children)


def _check_parts(children: Any, opts: Any, dot: str) -> None:
    # Most are this; to ask whether something is iterable takes as long as all else that is done with a child.
    if type(children) is list and type(opts) is dict:
        return
    if children is not None and (not isinstance(children, Iterable) or isinstance(children, str | bytes | Mapping)):
        raise ConfigurationError(f"{dot}children: got {children!r}; allowed is a list of FlowJobs")
    if opts is not None and not is_mapping(opts):
        raise ConfigurationError(f"{dot}opts: got {opts!r}; allowed is a dict of options of a job")


def _defaults_of(given: Any) -> dict[str, Mapping[str, Any]]:
    if given is None:
        return {}
    if not is_mapping(given):
        raise ConfigurationError(f"queues_options: got {given!r}; allowed is a dict by names of queues")
    defaults: dict[str, Mapping[str, Any]] = {}
    for name, options in given.items():
        place = f"queues_options[{name!r}]"
        if not is_mapping(options):
            raise ConfigurationError(f"{place}: got {options!r}; allowed is a dict with default_job_options")
        refuse_unknown(options, FlowQueueOptions.__annotations__, place)
        jobs: Any = options.get("default_job_options") or {}
        if not is_mapping(jobs):
            raise ConfigurationError(f"{place}.default_job_options: got {jobs!r}; allowed are options of a job")
        packed("check", b"{}", {}, jobs, f"{place}.default_job_options.")
        defaults[name] = jobs
    return defaults


Found = tuple[tuple[str, str], str, Any, list[int], int]
"""A job as it was read: prefix and queue, state, what is stored, where its children are, and how many it has."""


def read_tree(found: list[Found], job_of: Callable[..., JobT]) -> JobNode[JobT] | None:
    """A tree as it was read; None where there is nothing."""
    nodes: list[JobNode[JobT]] = []
    for (prefix, queue), state, stored, _, count in found:
        node = JobNode(job_of(prefix, queue, stored))
        if state:
            node.state, node.children_count = cast(JobState, state), count
        nodes.append(node)
    for node, (_, _, _, children, _) in zip(nodes, found, strict=True):
        node.children = [nodes[n] for n in children]
    return nodes[0] if nodes else None
