"""python -m pipelines.cloud.spot_notices

Tells Ray when the cloud is about to take this machine away. Ray marks the node as draining, trainings save their state
and go on elsewhere. AWS says so two minutes before, Google 30 seconds. Ends well where the machine is on neither.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

EVERY = 5.0  # seconds between two looks, as AWS advises
GOOGLE_SECONDS = 30.0
AWS = "http://169.254.169.254"  # AWS_EC2_METADATA_SERVICE_ENDPOINT as in AWS's own libraries
GOOGLE = "metadata.google.internal"  # GCE_METADATA_HOST as in Google's


def ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """An answer of a metadata server; None where it has none (404). OSError where no server is there."""
    request = urllib.request.Request(url, headers=headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
    try:
        with opener.open(request, timeout=2) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def seconds_left_on_aws(now: Callable[[], float] = time.time) -> float | None:
    """Seconds until AWS takes this spot instance away; None without a notice. OSError: not on AWS."""
    server = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", AWS).rstrip("/")
    token = ask(f"{server}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    headers = {"X-aws-ec2-metadata-token": token or ""}
    notice = ask(f"{server}/latest/meta-data/spot/instance-action", headers)
    if notice is None:
        return None
    end = datetime.strptime(json.loads(notice)["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return max(0.0, end.timestamp() - now())


def seconds_left_on_google() -> float | None:
    """Seconds until Google takes this machine away; None without a notice. OSError: not on Google's cloud."""
    server = os.environ.get("GCE_METADATA_HOST", GOOGLE)
    said = ask(f"http://{server}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GOOGLE_SECONDS if said == "TRUE" else None


def seconds_until_taken() -> float | None:
    """Seconds until this machine is taken away, None without a notice. OSError: on neither cloud."""
    try:
        return seconds_left_on_aws()
    except OSError:
        return seconds_left_on_google()


def drain(seconds: float) -> int:
    """Tell Ray that this node ends in so many seconds; the status of `ray drain-node`."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words = ["--reason-message", "notice of the cloud", "--deadline-remaining-seconds", str(int(seconds))]
    return subprocess.call([*command, *words])


def main() -> int:
    """Look until there is a notice, and pass it on; 0 when that is done or no cloud gives notices here."""
    known = False
    while True:
        try:
            left = seconds_until_taken()
            known = True
        except OSError as error:
            if not known:
                print(f"no metadata server of AWS or Google answers here, so no notice can come: {error}")
                return 0
            left = None  # it was there, and will be again
        if left is not None:
            print(f"this machine is taken away in {left:.0f} s", flush=True)
            return drain(left)
        time.sleep(EVERY)


if __name__ == "__main__":
    sys.exit(main())
