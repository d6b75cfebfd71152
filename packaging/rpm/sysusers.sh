#!/bin/sh
# Prints a scriptlet for %pre that creates the users of a sysusers.d file, for versions of rpm that do not. It understands only lines
# `u NAME - "COMMENT" - -`.
set -eu
sed -n 's/^u \([a-z0-9-]*\) - "\([^"]*\)" - -$/\1 \2/p' "$1" | while read -r name comment; do
    # A quote in the comment would end the string in the scriptlet.
    comment=$(printf %s "$comment" | sed "s/'/'\\\\''/g")
    cat <<PRE
getent group $name >/dev/null || groupadd -r $name || :
getent passwd $name >/dev/null || useradd -r -g $name -d / -s /sbin/nologin -c '$comment' $name || :
PRE
done
if grep -v -e '^#' -e '^$' -e '^u [a-z0-9-]* - "[^"]*" - -$' "$1" >&2; then
    echo "sysusers.sh: $1: only lines for users are supported" >&2
    exit 1
fi
