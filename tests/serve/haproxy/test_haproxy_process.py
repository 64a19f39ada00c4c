"""One HAProxy that runs, as its keeper sees it."""

import asyncio
import subprocess
import sys
import time

from serve.haproxy import haproxy_process

STATISTICS = """# pxname,svname,scur,status,check_status
http-resnet,r1,3,DOWN,L7TOUT
http-resnet,r2,2,DOWN,L4CON
http-resnet,r3,0,DOWN,L7TOUT
http-resnet,r4,5,UP,L7OK
http-resnet,BACKEND,10,UP,
"""


def test_how_a_process_ended_in_words():
    assert (haproxy_process.describe_end(-9), haproxy_process.describe_end(1)) == ("SIGKILL", "status 1")


def test_a_stopped_replica_is_told_from_a_dead_one():
    assert haproxy_process.stopped_servers(STATISTICS) == ["http-resnet/r1"]


def test_where_no_other_replica_answers_a_slow_one_keeps_what_it_holds():
    alone = STATISTICS.replace("r4,5,UP,L7OK", "r4,5,DOWN,L7TOUT").replace("BACKEND,10,UP", "BACKEND,10,DOWN")
    assert haproxy_process.stopped_servers(alone) == []


def test_the_end_of_a_process_is_noticed_and_one_that_has_ended_too():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    began = time.monotonic()
    asyncio.run(haproxy_process.ended(process.pid))
    assert 0.05 < time.monotonic() - began < 20
    process.wait()
    asyncio.run(haproxy_process.ended(process.pid))
