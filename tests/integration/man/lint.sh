#!/bin/bash
# Checks the man pages: mandoc's lint, and that each page referred to exists in man/ or is in OTHERS.
set -euo pipefail
cd "$(dirname "$0")/../../.."
# Pages of other projects. They may not be installed here, so mandoc does not check these references.
OTHERS=" busctl.1 journalctl.1 jq.1 systemctl.1 fnmatch.3 sd_bus_path_encode.3 systemd.exec.5 systemd.socket.5 capabilities.7 upsd.8 "
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
    echo "lint: mandoc is missing: man pages are only checked for their references"
fi
exit $wrong
