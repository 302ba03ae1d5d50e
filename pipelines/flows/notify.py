"""What a flow tells the world when it ends: one JSON message to the operator's webhook, if any.

The message names the flow, its state and the table. Errors stay in the server, since their texts
may name people.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import httpx

from infra.settings import load as load_settings

_log = logging.getLogger("ironmask.notify")
_TIMEOUT_S: Final = 10.0


def tell(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook of a flow run. A webhook that does not answer is logged, and changes nothing."""
    settings, _ = load_settings()
    if not settings.notify_url:
        return
    parameters = flow_run.parameters or {}
    request = parameters.get("request", parameters)
    message = {
        "flow": flow.name,
        "run": flow_run.name,
        "state": state.name,
        "dest": _place(request) if isinstance(request, dict) else None,
    }
    try:
        httpx.post(settings.notify_url, json=message, timeout=_TIMEOUT_S).raise_for_status()
    except httpx.HTTPError as error:
        _log.warning("the webhook did not take a message (%s)", type(error).__name__)


def _place(request: dict[str, Any]) -> Any:
    """The table that a flow works on, or where its report goes."""
    return request.get("dest") or request.get("out")


HOOKS: Final[dict[str, Any]] = {
    "on_completion": [tell],
    "on_failure": [tell],
    "on_crashed": [tell],
    "on_cancellation": [tell],
}
