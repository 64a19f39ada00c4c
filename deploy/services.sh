#!/usr/bin/env bash
# What runs on a machine of a cluster beside Ray, each restarted when it ends badly; logs in ~/resnet-services:
#   bash deploy/services.sh head|worker
# A second call leaves alone what runs. Without RESNET_BUCKET in ~/resnet-node.env nothing is copied anywhere.
role=${1:?head or worker}
source "$(dirname "${BASH_SOURCE[0]}")/node.sh" || exit 1
logs=~/resnet-services
mkdir -p "$logs"

service() { # NAME COMMAND...: in the background until it ends well; one of each name
    local name=$1
    shift
    setsid flock --nonblock "$logs/$name.lock" \
        bash -c 'until "$@"; do sleep 10; done' "$name" "$@" >>"$logs/$name.log" 2>&1 </dev/null &
}

if [ -n "$RESNET_BUCKET" ]; then
    service copies python -m pipelines.cloud.node_copies logs "$RESNET_BUCKET/logs/$(hostname)"
fi
service notices python -m pipelines.cloud.spot_notices
if [ "$role" = worker ] && [ "${RESNET_IDLE_MINUTES:-0}" -gt 0 ]; then
    # Idle workers are ended by the head; one whose head is gone would be paid for ever.
    service idle python -m pipelines.cloud.idle_end worker 15 -- sudo shutdown -h now
fi
if [ "$role" = head ]; then
    if [ -n "$RESNET_BUCKET" ] && [ "$MLFLOW_TRACKING_URI" = "http://$RESNET_NODE_ADDRESS:5000" ]; then
        # All of MLflow's server that must outlive the head is its database; artifacts go to the bucket directly.
        python -m pipelines.cloud.node_copies restore ~/mlflow/mlflow.db "$RESNET_BUCKET/mlflow" || exit 1
        service mlflow mlflow server --host 0.0.0.0 --port 5000 --workers 2 \
            --backend-store-uri "sqlite:///$HOME/mlflow/mlflow.db" --artifacts-destination "$RESNET_BUCKET/mlflow/artifacts"
        service database python -m pipelines.cloud.node_copies database ~/mlflow/mlflow.db "$RESNET_BUCKET/mlflow"
    fi
    if [ "${RESNET_IDLE_MINUTES:-0}" -gt 0 ]; then
        service idle python -m pipelines.cloud.idle_end head "$RESNET_IDLE_MINUTES" -- sudo shutdown -h now
    fi
fi
