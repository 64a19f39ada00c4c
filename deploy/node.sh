# What a machine of a cluster needs before `ray start`; sourced, by cluster.yaml and by hand:
#   source deploy/node.sh && ray start --address=HEAD:6379
# It activates the environment that deploy/setup.sh made and says what Ray's processes inherit. Values that differ from
# cluster to cluster come from ~/resnet-node.env (KEY=VALUE lines), which cluster.yaml writes. What is missing on a
# machine is left out: no local disk, no HAProxy, no bucket.
_project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
set -a # export what is set from here on
if [ -f ~/resnet-node.env ]; then source ~/resnet-node.env; fi

source "$_project/.venv/bin/activate"
cd "$_project" || return 1
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

RAY_AUTH_MODE=token
RAY_USAGE_STATS_ENABLED=0
# The interface of the default route: gloo would take what the host's name resolves to, often loopback. NCCL passes over
# loopback and Docker's by itself, but not over other bridges. `=` means this very name, else it is a prefix.
RESNET_INTERFACE=${RESNET_INTERFACE:-$(ip -o route get 1 2>/dev/null | grep -oP 'dev \K\S+')}
GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$RESNET_INTERFACE}
if [ -n "$RESNET_INTERFACE" ]; then NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-=$RESNET_INTERFACE}; fi

# Objects that memory does not hold go to the machine's own disk (3.8 TB on a g6.12xlarge), which AWS's Deep Learning
# images mount at /opt/dlami/nvme, not to the small root volume.
RESNET_LOCAL_DISK=${RESNET_LOCAL_DISK:-/opt/dlami/nvme}
if mountpoint --quiet "$RESNET_LOCAL_DISK" 2>/dev/null; then
    [ -w "$RESNET_LOCAL_DISK" ] || sudo chmod 1777 "$RESNET_LOCAL_DISK"
    mkdir -p "$RESNET_LOCAL_DISK/ray-spill" && RAY_object_spilling_directory=$RESNET_LOCAL_DISK/ray-spill
fi

# Where runs are recorded: the server that deploy/services.sh starts on the head, unless another is named.
RESNET_NODE_ADDRESS=$(ip -o route get 1 2>/dev/null | grep -oP 'src \K\S+')
if [ -z "$MLFLOW_TRACKING_URI" ] && [ -n "$RESNET_BUCKET" ]; then
    MLFLOW_TRACKING_URI=http://${RAY_HEAD_IP:-$RESNET_NODE_ADDRESS}:5000
fi

# Serve's requests go through HAProxy on each node: serve/haproxy/environment.py says why.
if _haproxy=$(python -m serve.haproxy ~/haproxy 2>/dev/null); then eval "$_haproxy"; fi
set +a
unset _project _haproxy
