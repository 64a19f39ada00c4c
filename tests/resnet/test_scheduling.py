"""Who interrupts whom: what a process starts inherits, and who chose a policy of his own keeps it."""

import os
import platform
import subprocess
import sys
import threading

import pytest

from resnet import scheduling

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no batch policy")
POLICY = "import os; print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))"
BECOME = """
import os, threading
from resnet import scheduling

def policies():
    return [os.sched_getscheduler(int(name)) for name in os.listdir("/proc/self/task")]

wait = threading.Event()
thread = threading.Thread(target=wait.wait)
thread.start()
changed = scheduling.become_batch()
later = threading.Thread(target=wait.wait)
later.start()
print(changed, policies())
scheduling.become_normal()
print(policies())
wait.set()
"""


def run(code: str, *before: str) -> str:
    """What a Python process prints. before: a command that it is started by."""
    return subprocess.run([*before, sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_processes_that_are_started_meanwhile_wait_their_turn_and_this_one_does_not():
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    with scheduling.batch():
        inside = run(POLICY).split()
        threading.Thread(target=lambda: None).start()
    assert inside == [str(os.SCHED_BATCH), str(os.getpriority(os.PRIO_PROCESS, 0))]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert run(POLICY).split()[0] == str(os.SCHED_OTHER)


def test_every_thread_of_a_process_changes_and_changes_back():
    batch, normal = os.SCHED_BATCH, os.SCHED_OTHER
    assert run(BECOME).splitlines() == [f"True {[batch] * 3}", f"{[normal] * 3}"]


def test_who_chose_another_policy_or_priority_keeps_it():
    change = "from resnet import scheduling; print(scheduling.become_batch()); "
    idle = f"import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)); {change}{POLICY}"
    assert run(idle).split() == ["False", str(os.SCHED_IDLE), "0"]
    nice = f"import os; os.nice(3); {change}{POLICY}"
    assert run(nice).split()[-1] == str(os.getpriority(os.PRIO_PROCESS, 0) + 3)


@pytest.mark.skipif(
    platform.machine() not in scheduling.SETATTR or tuple(map(int, platform.release().split(".")[:2])) < (6, 12),
    reason="the slice cannot be set before Linux 6.12, and by number only where we know that",
)
def test_the_slice_is_longer():
    shown = run("print([line for line in open('/proc/self/sched') if 'slice' in line])")
    if "slice" not in shown:
        pytest.skip("this kernel does not show slices")
    code = "from resnet import scheduling; scheduling.become_batch(); "
    code += "print(next(line for line in open('/proc/self/sched') if 'slice' in line))"
    assert int(run(code).split()[-1]) == scheduling.SLICE
