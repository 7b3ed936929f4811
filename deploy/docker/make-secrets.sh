#!/bin/sh
# Makes the secrets of docker-compose.yml, each in a file of its own: make-secrets.sh [FOLDER], by default `secrets`.
# Passwords that exist are kept and checked; the files that contain them (URLs, users of Redis) are written anew.
set -eu

folder=${1:-secrets}
mkdir -p "$folder"
chmod 700 "$folder" # the files are open to all, since each container reads its own as another user; the folder is not
umask 022
failed=0

# The password NAME: sets `value`.
password() {
    [ -e "$folder/$1" ] || od -An -N20 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$1"
    value=$(cat "$folder/$1")
    case "$value" in
        "" | ? | ?? | ??? | ???? | ????? | ?????? | ???????) refuse "$1" "has less than 8 characters" ;;
        *[!A-Za-z0-9._~-]*) refuse "$1" "may have only letters, digits and . _ ~ -: it becomes part of a URL" ;;
    esac
}

refuse() {
    echo "error: $folder/$1 $2" >&2
    failed=1
}

write() {
    cat >"$folder/$1"
}

password minio-root-password
password minio-secret-key

password redis-admin-password
admin=$value
password redis-password
# Without a login a client may PING. The service's user reaches its own keys and those of Celery's transport; see docs/production.md.
write redis-users.acl <<END
user default on nopass resetkeys resetchannels -@all +ping
user admin on >$admin ~* &* +@all
user inference on >$value ~inference ~inference:* ~predict.* ~unacked* ~_kombu.* ~*.celery.pidbox* ~celeryev.* &inference:* &/0.celery.pidbox &/0.celeryev/* &/0.celeryev/worker.* +@all -@admin -@dangerous +info
END
write redis-url <<END
redis://inference:$value@redis:6379/0
END

password mongo-root-password
password mongo-password
write mongodb-url <<END
mongodb://inference:$value@mongo:27017/inference
END

password rabbitmq-password
write rabbitmq-url <<END
amqp://inference:$value@rabbitmq:5672//
END
write rabbitmq-login.conf <<END
default_user = inference
default_pass = $value
END

password flower-password
write flower-login <<END
${FLOWER_USER:-admin}:$value
END

password grafana-password

# The key of Prometheus, for the profile `monitoring`, is one of the service, which makes it: docs/docker.md
[ -e "$folder/prometheus-key" ] || write prometheus-key </dev/null

exit "$failed"
