#!/bin/sh
# Ends with 1, and a line for each, when a secret is missing, is still the one of .env.example, or does not fit into a URL.
set -eu

failed=0

refuse() {
    echo "error: $1 $2; set it in .env" >&2
    failed=1
}

check() {
    value=$(printenv "$1" || true)
    case "$value" in
        "") [ "$2" = optional ] || refuse "$1" "is empty" ;;
        change-me*) refuse "$1" "is still the example" ;;
        *[!A-Za-z0-9._~-]*) refuse "$1" "may have only letters, digits and . _ ~ -" ;;
    esac
}

for name in MINIO_ROOT_USER MINIO_ROOT_PASSWORD RABBITMQ_PASSWORD FLOWER_PASSWORD; do
    check "$name" required
done
for name in REDIS_PASSWORD MONGO_PASSWORD; do
    check "$name" optional
done
exit "$failed"
