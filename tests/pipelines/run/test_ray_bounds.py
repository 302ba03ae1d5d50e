"""How much work a cluster is given: bounds that follow what it has, without a cluster."""

from __future__ import annotations

import pytest

from ironmask.errors import ParameterError, ProviderError
from pipelines.run.ray_nodes import MODELS, Node, NodeError
from pipelines.run.ray_stages import LEAST_WAITING, MOST_WAITING, Crowd, Hosts
from pipelines.spec.workplace import Workplace


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
