"""What the Docker Engine saw of a stack."""

import json
import subprocess
import time


def start_events(project):
    """Follows when the Engine stops and starts the stack. (It keeps only its last
    events, and other stacks make theirs.) No others, such as health checks: the
    pipe is read at the end, and must not be full before."""
    follower = subprocess.Popen(
        ["docker", "events", "--format", "{{json .}}",
         "--filter", "event=kill", "--filter", "event=start",
         "--filter", f"label=com.docker.compose.project={project}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(0.5)
    return follower


def downtime(follower):
    """Seconds from the first stop signal to the last start."""
    # The last event may still be on its way.
    time.sleep(0.5)
    follower.terminate()
    events = [json.loads(line) for line in follower.communicate()[0].splitlines()]
    at = lambda action: [e["timeNano"] / 1e9 for e in events if e["Action"] == action]
    return max(at("start")) - min(at("kill"))
