"""The notice that a machine of Google's cloud will be taken away: its metadata server tells, 30 seconds or more before.

Source: cloud.google.com/compute/docs/metadata/getting-live-migration-notice and .../instances/create-use-preemptible.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

PREEMPTION, MAINTENANCE = "preemption of this machine", "maintenance of this machine"
POLL_SECONDS = 5.0
ANSWER_SECONDS = 2.0
PRODUCT = Path("/sys/class/dmi/id/product_name")


class Notice:
    """Asks the metadata server again and again, in a thread of its own, and tells once; does nothing on other machines.

    Args:
      tell: called with what will happen, in words.
    """

    def __init__(self, tell: Callable[[str], Any]):
        self._tell = tell
        self._closed = threading.Event()
        server = metadata_server()
        if server is not None:
            threading.Thread(target=self._watch, args=(server,), name="notice", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _watch(self, server: str) -> None:
        opener = build_opener(ProxyHandler({}))  # the server is on this machine's own link, behind no proxy
        request = Request(f"http://{server}/computeMetadata/v1/instance/?recursive=true", headers={"Metadata-Flavor": "Google"})
        while not self._closed.wait(POLL_SECONDS):
            try:
                with opener.open(request, timeout=ANSWER_SECONDS) as answer:
                    event = coming_event(json.load(answer))
            except (OSError, ValueError, HTTPException):
                continue  # busy, or no answer yet: it is asked again
            if event is not None and not self._closed.is_set():
                self._tell(event)
                return


def metadata_server() -> str | None:
    """Host of the metadata server: $GCE_METADATA_HOST, or where this is a machine of Google's cloud, the one it has."""
    given = os.environ.get("GCE_METADATA_HOST")
    if given:
        return given
    try:
        return "metadata.google.internal" if "Google" in PRODUCT.read_text() else None
    except OSError:
        return None


def coming_event(instance: Mapping[str, Any]) -> str | None:
    """What the server's description of a machine says that ends it. One that is only moved while it runs goes on."""
    if str(instance.get("preempted", "")).upper() == "TRUE":
        return PREEMPTION
    event = str(instance.get("maintenanceEvent", "NONE"))
    return f"{MAINTENANCE} ({event})" if event.startswith("TERMINATE") else None


def is_notice(why: str) -> bool:
    """Whether a run was stopped for what `coming_event` says, on whichever machine."""
    return why.startswith((PREEMPTION, MAINTENANCE))
