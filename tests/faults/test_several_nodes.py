"""One enrolment on three nodes, one of which is killed: the short version."""

from __future__ import annotations

import pytest
from faults.drivers import job
from faults.nodes import NoClusterError, cluster
from faults.several_nodes import NODES, stored


@pytest.mark.slow
def test_a_node_that_dies_changes_no_row(tmp_path):
    try:
        with cluster(tmp_path / "nodes", NODES) as where:
            seen = stored(where, job(tmp_path / "e.parquet", 600, tmp_path / "dest"), 16, 1)
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert [line for line in seen if not line.holds] == []
