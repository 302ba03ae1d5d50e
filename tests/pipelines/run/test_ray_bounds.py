"""How much work a cluster is given: bounds that follow what it has, without a cluster."""

from __future__ import annotations

from threading import Event

import pytest
from ray.exceptions import RaySystemError, RayTaskError

from ironmask.errors import ParameterError, ProviderError
from pipelines.run import ray_nodes
from pipelines.run.ray_nodes import MODELS, WORK, Node, NodeError, Nodes
from pipelines.run.ray_stages import LEAST_WAITING, MOST_WAITING, Crowd, Hosts
from pipelines.run.work import Standing
from pipelines.spec.workplace import Workplace

NODES = [Node(letter * 56, f"10.0.0.{n}", {"CPU": 1.0}) for n, letter in enumerate("abc")]


@pytest.mark.parametrize(
    ("workers", "grows", "room", "handed_out"),
    [
        # As many wait as run.
        (None, False, 2, 4),
        # An empty cluster that may grow sees what is wanted.
        (None, True, 0, LEAST_WAITING),
        (None, True, 3, 3 + LEAST_WAITING),
        (None, True, 100, 200),
        # Memory does not follow a large one.
        (None, True, 20_000, 20_000 + MOST_WAITING),
        (None, False, 0, 0),
        # No more than so many run at a time.
        (4, False, 4, 8),
        (4, True, 100, 4),
        (4, True, 0, 8),
        (1, True, 1, 2),
    ],
)
def test_what_is_handed_out(workers, grows, room, handed_out) -> None:
    assert Crowd(workers, grows).window(room) == handed_out


@pytest.mark.parametrize(
    ("needs", "room"),
    [
        ({"CPU": 1.0}, 4),
        ({"CPU": 1.0, "memory": 3e9}, 2),
        ({"CPU": 1.0, "memory": 8e9}, 0),
        ({"GPU": 1.0}, 1),
        ({"GPU": 0.25}, 4),
        # A tenth is no exact number, and ten of them are one.
        ({"GPU": 0.1}, 10),
        ({"GPU": 0.3}, 3),
        ({"accelerator": 1.0}, 0),
    ],
)
def test_what_a_node_has_room_for(needs, room) -> None:
    node = Node("a" * 56, "10.0.0.2", {"CPU": 4.0, "GPU": 1.0, "memory": 7e9})
    assert node.room(needs) == room
    assert node.name == "10.0.0.2, id aaaaaaaaaaaa"


def test_what_a_host_reserves() -> None:
    assert Hosts(None, {"GPU": 0.5}).options == {"num_gpus": 0.5, "resources": {}}
    other = Hosts(2, {"accelerator": 1.0}).options
    assert other == {"num_gpus": 0, "resources": {"accelerator": 1.0}}


def test_what_a_node_lacks_survives_a_trip_between_processes() -> None:
    import cloudpickle

    fault = cloudpickle.loads(cloudpickle.dumps(NodeError(MODELS, "n1", ProviderError("inactive"))))
    assert (fault.role, fault.node, str(fault.error)) == (MODELS, "n1", "inactive")
    assert fault.why == "ProviderError"


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_of_a_gpu_is_one(share: float) -> None:
    with pytest.raises(ParameterError, match="gpu_fraction"):
        Workplace(gpu_fraction=share)


@pytest.fixture
def nodes(monkeypatch) -> Nodes:
    monkeypatch.setattr(ray_nodes, "_there", lambda: NODES)
    found = Nodes(Standing())
    found.look(now=True)
    return found


MISSING = ModuleNotFoundError("No module named 'pipelines'")
AT_B = "ray::whole() (pid=7, ip=10.0.0.1)\n"


@pytest.mark.parametrize(
    ("said", "cause", "is_lacking"),
    [
        (f"{AT_B}{MISSING!r}", RaySystemError(MISSING), True),
        (f"{AT_B}The remote function failed to import on the worker.", RuntimeError("x"), True),
        # A stage that lacks something is at fault itself.
        (f"{AT_B}{MISSING!r}", MISSING, False),
        (f"{AT_B}no memory", RaySystemError(MemoryError()), False),
        # Nobody knows where.
        (f"{MISSING!r}", RaySystemError(MISSING), False),
        (f"ip=10.0.0.9 {MISSING!r}", RaySystemError(MISSING), False),
    ],
)
def test_a_node_that_cannot_load_the_program_is_known(nodes, said, cause, is_lacking) -> None:
    error = RayTaskError("whole", said, cause).as_instanceof_cause()
    fault = nodes.lacking(WORK, error)
    assert (fault is not None) == is_lacking
    if fault:
        assert (fault.node, fault.why) == ("b" * 56, "WorkerError")


def test_nobody_waits_for_a_head_that_does_not_answer(nodes, monkeypatch) -> None:
    answered = Event()

    def patient() -> list[Node]:
        answered.wait(60)
        return NODES[:1]

    monkeypatch.setattr(ray_nodes, "_there", patient)
    monkeypatch.setattr(ray_nodes, "_LOOK_S", 0.0)
    for _ in range(3):
        nodes.look()
        assert nodes.usable(WORK) == NODES
    answered.set()
    nodes.look(now=True)
    assert nodes.usable(WORK) == NODES[:1]
