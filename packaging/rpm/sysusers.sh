#!/bin/sh
# The scriptlet that makes the users of a sysusers.d file, for %pre of packages whose rpm does not: `u NAME - "COMMENT" - -` lines alone.
set -eu
sed -n 's/^u \([a-z0-9-]*\) - "\([^"]*\)" - -$/\1 \2/p' "$1" | while read -r name comment; do
    # Within an RPM's scriptlet a quote in the comment would end it.
    comment=$(printf %s "$comment" | sed "s/'/'\\\\''/g")
    cat <<PRE
getent group $name >/dev/null || groupadd -r $name || :
getent passwd $name >/dev/null || useradd -r -g $name -d / -s /sbin/nologin -c '$comment' $name || :
PRE
done
if grep -v -e '^#' -e '^$' -e '^u [a-z0-9-]* - "[^"]*" - -$' "$1" >&2; then
    echo "sysusers.sh: $1: only lines of users are understood" >&2
    exit 1
fi
