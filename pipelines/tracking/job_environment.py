"""The environment that a submitted job inherits from the shell that it was submitted from."""

from __future__ import annotations

import os

from pipelines import provenance
from pipelines.job_notice import NOTIFY
from pipelines.run import home
from pipelines.tracking.mlflow_runs import PARENT
from pipelines.tracking.mlflow_store import CREDENTIALS, SETTINGS, store_uri

PASSED_ON = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", PARENT, *SETTINGS)


def passed_on(private: bool, here: bool) -> dict[str, str]:
    """The part that a job gets of this shell's environment.

    private: to a head that this process starts credentials come by inheritance, and so do not stand in Ray's records of
    the job; a cluster that runs already gets them in those, which all who may ask it for jobs can read.
    here: the cluster's head is this machine, so that a job finds the home folder of this one.
    """
    names = PASSED_ON if private else (*PASSED_ON, *CREDENTIALS, NOTIFY)  # its address is a secret too
    found = {name: os.environ[name] for name in names if name in os.environ}
    if "MLFLOW_TRACKING_URI" in found:
        found["MLFLOW_TRACKING_URI"] = store_uri()  # a relative path would be another file in the job's folder
    if here:
        found["RESNET_HOME"] = home()
    found[provenance.COMMIT] = provenance.git_commit()  # the upload leaves .git out
    return found
