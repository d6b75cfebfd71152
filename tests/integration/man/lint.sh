#!/bin/bash
# The form of the man pages: mandoc's own checks, and that every page which is referred to is ours or one of OTHERS.
set -euo pipefail
cd "$(dirname "$0")/../../.."
# Pages of others that ours refer to. They need not be installed here, which is why mandoc is not asked.
OTHERS=" busctl.1 journalctl.1 jq.1 systemctl.1 sd_bus_path_encode.3 systemd.exec.5 systemd.socket.5 capabilities.7 "
wrong=0

while read -r file name section; do
    page=$name.$section
    [ -e "man/$page" ] || [[ $OTHERS == *" $page "* ]] || {
        echo "$file: refers to $name($section), which is neither in man/ nor one of OTHERS in $0" >&2
        wrong=1
    }
done < <(grep -EoH '^\.Xr [^ ]+ [0-9]' man/*.[1-8] | sed 's/:\.Xr / /' | sort -u)

if command -v mandoc >/dev/null; then
    said=$(mandoc -T lint man/*.[1-8] 2>/dev/null | grep -v 'referenced manual not found' || true)
    [ -z "$said" ] || {
        echo "$said" >&2
        wrong=1
    }
else
    echo "lint: no mandoc: man pages are not checked by it"
fi
exit $wrong
