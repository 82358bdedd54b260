"""Random workflow trees, what must become of every step of them by the rules of docs/features.md, and a check of it."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from dbqueue import WorkflowResult, chain, group
from dbqueue.models import GROUP, OPEN, Attempt, Job, JobStatus, Workflow

from .shop.models import Mark
from .shop.workflow_tasks import digest, leaf, normal, told_of

KINDS = (
    *["ok"] * 6,
    *["fail", "discard", "retry", "grow", "grow often", "grow empty"],
    *["become", "become failing", "become group", "become empty"],
)

BAD = object()
"""Instead of a value: what stood before has not succeeded."""

NEVER = "CANCELLED, never run"


@dataclass(frozen=True)
class Leaf:
    kind: str
    allows: bool
    immutable: bool
    is_told: bool
    is_linked: bool


@dataclass(frozen=True)
class Chain:
    nodes: tuple[Any, ...]


@dataclass(frozen=True)
class Group:
    nodes: tuple[Any, ...]


def trees(most: int = 12) -> st.SearchStrategy[Any]:
    leaves = st.builds(Leaf, st.sampled_from(KINDS), *[st.sampled_from((False, False, False, True))] * 4)
    return st.recursive(
        leaves,
        lambda nodes: (
            st.builds(Chain, st.lists(nodes, min_size=1, max_size=4).map(tuple))
            | st.builds(Group, st.lists(nodes, max_size=4).map(tuple))
        ),
        max_leaves=most,
    ).map(lambda node: Chain((node,)))


@dataclass
class Tree:
    """One that can be enqueued. Reading the specification gives both the workflow and what is expected of it."""

    spec: Any
    name: str
    expected: dict[str, str] = field(default_factory=dict)
    """By label: the state in the end."""
    given: dict[str, Any] = field(default_factory=dict)
    """What those that run are called with."""
    told: set[str] = field(default_factory=set)
    result: WorkflowResult | None = None

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._grown: list[list[Any]] = []
        self.node, self.value = self._read(self.spec, None)

    def _read(self, spec: Any, before: Any) -> tuple[Any, Any]:
        """The node for dbqueue, and its value. ``before``: None, or a list of one, the value given on."""
        match spec:
            case Leaf():
                return self._read_leaf(spec, before)
            case Chain():
                nodes = []
                for one in spec.nodes:
                    node, value = self._read(one, before)
                    nodes.append(node)
                    before = [value]
                return chain(nodes), value
            case Group():
                self._grown.append([])
                read = [self._read(one, before) for one in spec.nodes]
                values = [value for _, value in read] + self._grown.pop()
                is_bad = (before is not None and before[0] is BAD) or any(value is BAD for value in values)
                return group([node for node, _ in read]), BAD if is_bad else values
        raise AssertionError(spec)

    def _read_leaf(self, spec: Leaf, before: Any) -> tuple[Any, Any]:
        label = f"{self.name}:{next(self._numbers)}"
        kind = spec.kind
        if kind.startswith("grow") and (not self._grown or self._grown[-1]):
            kind = "ok"  # in no group; or a second one, and nobody knows whose member comes first
        make = leaf.si if spec.immutable else leaf.s
        node: Any = make(label=label, kind=kind).set(allow_failure=spec.allows)
        if kind in ("fail", "become failing"):
            node = node.set(max_attempts=1)
        if spec.is_told:
            node = node.on_error(told_of.s(label=label))
        if before is not None and before[0] is BAD:
            self.expected[label] = NEVER
            value: Any = "failure" if spec.allows else BAD
        else:
            given = [] if before is None or spec.immutable else list(before)
            self.given[label] = given
            value = self._run(label, kind, given, spec)
        return self._linked(node, label, value) if spec.is_linked else node, value

    def _linked(self, node: Any, label: str, value: Any) -> Any:
        """The same with what comes after its success."""
        succeeds = value is not BAD and value != "failure"
        self.expected[f"{label}.link"] = JobStatus.SUCCESSFUL if succeeds else NEVER
        self.given[f"{label}.link"] = [value]
        return node.link(leaf.s(label=f"{label}.link", kind="ok"))

    def _run(self, label: str, kind: str, given: list[Any], spec: Leaf) -> Any:
        ended_badly: Any = "failure" if spec.allows else BAD
        self.expected[label] = JobStatus.SUCCESSFUL
        match kind:
            case "fail":
                self.expected[label] = JobStatus.FAILED
                self.told |= {label} if spec.is_told else set()
                return ended_badly
            case "discard":
                self.expected[label] = JobStatus.CANCELLED
                return ended_badly
            case "become" | "become failing":
                first = digest(f"{label}.1", [])
                self.expected[f"{label}.1"] = JobStatus.SUCCESSFUL
                self.given |= {f"{label}.1": [], f"{label}.2": [first]}
                if kind == "become":
                    self.expected[f"{label}.2"] = JobStatus.SUCCESSFUL
                    return digest(f"{label}.2", [first])
                self.expected |= {f"{label}.2": JobStatus.FAILED, label: JobStatus.CANCELLED}
                self.told |= {label} if spec.is_told else set()
                return ended_badly
            case "become group":
                return [self._alone(f"{label}.1"), self._alone(f"{label}.2")]
            case "become empty":
                return []
            case "grow":
                self._grown[-1].append(self._alone(f"{label}.1"))
            case "grow empty":
                self._grown[-1] += [[], self._alone(f"{label}.1")]
            case "grow often":
                first, second, third = (self._alone(f"{label}.{number}") for number in (1, 2, 3))
                self._grown[-1] += [first, [second], third]
        return digest(label, given)

    def _alone(self, label: str) -> str:
        """The value of a step that is made at run time and given nothing."""
        self.expected[label] = JobStatus.SUCCESSFUL
        self.given[label] = []
        return digest(label, [])

    # Afterwards

    def enqueue(self) -> None:
        self.result = self.node.enqueue()

    @property
    def is_over(self) -> bool:
        assert self.result is not None
        return not Job.objects.filter(workflow_id=self.result.workflow_id, status__in=OPEN).exists()

    def problems(self) -> "Counter[str]":
        """What is not as it must be, by kind."""
        assert self.result is not None
        found: Counter[str] = Counter()
        rows = Job.objects.filter(workflow_id=self.result.workflow_id).exclude(task=GROUP)
        jobs = {job.kwargs["label"]: job for job in rows}
        found["steps too few or too many"] = abs(len(rows) - len(self.expected))
        found["trees not final"] = not self.is_over
        found["workflows without an end"] = Workflow.objects.get(pk=self.result.workflow_id).finished_at is None
        for label, state in self.expected.items():
            job = jobs.get(label)
            if job is None:
                found["steps lost"] += 1
                continue
            found["steps in a wrong state"] += job.status != state.partition(",")[0]
            if state != NEVER:
                found["steps given something else"] += normal(job.args) != normal(self.given[label])
        called = Counter(
            Job.objects.filter(task=told_of.name, kwargs__label__startswith=f"{self.name}:").values_list(
                "kwargs__label", flat=True
            )
        )
        found["callbacks too few or too many"] = sum(
            abs(called[label] - (label in self.told)) for label in called.keys() | self.told
        )
        last = Job.objects.get(pk=self.result.last_id)
        if self.value is BAD or self.value == "failure":
            found["results that are none"] = last.status == JobStatus.SUCCESSFUL
        else:
            found["results that are wrong"] = normal(last.return_value) != normal(self.value)
        return +found + self._problems_of_runs(jobs)

    def _problems_of_runs(self, jobs: dict[str, Job]) -> "Counter[str]":
        """Each step runs once, and once more for its own retry and for each worker that died with it."""
        found: Counter[str] = Counter()
        errors = attempts_of(jobs.values())
        marks = Counter(Mark.objects.filter(label__startswith=f"{self.name}:").values_list("label", flat=True))
        for label, job in jobs.items():
            never = self.expected.get(label) == NEVER
            lost = sum(errors[job.pk].values())
            # An attempt that was lost is one of those allowed: after a first one that was, the second is the last.
            retries = job.kwargs["kind"] in ("retry", "fail") and job.max_attempts > 1 and not errors[job.pk][1]
            runs = 0 if never else 1 + retries + lost
            found["steps run too few or too many times"] += job.attempt != runs
            # A worker that dies may have begun what it had taken ahead, and had told nobody.
            found["bodies run too few or too many times"] += not runs - lost <= marks[label] <= runs + job.crashes
        return +found


def attempts_of(jobs: Iterable[Job]) -> dict[int, dict[int, bool]]:
    """Of each job its attempts that did not succeed, by number: whether it was lost with its worker."""
    found: dict[int, dict[int, bool]] = defaultdict(lambda: defaultdict(bool))
    rows = Attempt.objects.filter(job__in=[job.pk for job in jobs])
    for pk, number, path in rows.values_list("job_id", "number", "exception_class_path"):
        found[pk][number] = path.endswith(".WorkerLost")
    return found
