"""What Ray starts in HAProxy's place."""

import os
import subprocess

import psutil

from serve.haproxy import launcher
from tests.serve.haproxy.conftest import Fronts


def test_a_question_about_haproxy_is_answered_by_haproxy(fronts: Fronts):
    front = fronts(replicas=0)
    done = subprocess.run([front.wrapper, "-v"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("HAProxy version ")


def test_a_configuration_that_haproxy_refuses_is_an_end_with_its_words_and_the_old_one_stays(fronts: Fronts):
    front = fronts(replicas=1)
    front.launch()
    front.config.write_text(front.config.read_text().replace("leastconn", "nonsense"))
    done = subprocess.run([front.wrapper, "-db", "-f", front.config], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "HAProxy did not start" in done.stderr
    assert "balance only" in done.stderr
    assert front.ask().status_code == 200


def test_the_process_above_is_found():
    assert launcher.parent_of(os.getpid()) == psutil.Process().ppid()
