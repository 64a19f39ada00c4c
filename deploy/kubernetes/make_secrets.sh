#!/usr/bin/env bash
# Make what must be secret, once: Ray's token, Redis's password, one client's key for the endpoint. Files that are there
# stay; git ignores them. Keep a copy: `ray` and clients need the token and the key.
set -euo pipefail
umask 077
folder=$(cd "$(dirname "$0")" && pwd)/platform/secrets
mkdir -p "$folder"
random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
[ -s "$folder/ray_token" ] || random >"$folder/ray_token"
[ -s "$folder/redis_password" ] || random >"$folder/redis_password"
[ -s "$folder/api_keys" ] || echo "first-client $(random)" >"$folder/api_keys" # a line `NAME KEY` for each client
echo "secrets are in $folder"
