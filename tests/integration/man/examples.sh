#!/bin/bash
# The examples of the man pages and of docs/, for the tests that run them.
#
#   examples.sh KIND            commands of a kind, one a line, in their order
#   examples.sh KIND FOLDER     each example as a file of its own in FOLDER, named by its page and line
#
# In a man page an example is a literal display after a comment that names its kind; in Markdown, a fenced block whose language is the kind:
#
#   toml      a configuration of jouled
#   unit      a drop-in of a systemd unit
#   joulectl  commands that ask a jouled that runs, as root or a member of its group
#   jouled    commands that run a jouled of their own, or none
#   busctl    commands that ask a jouled on the system bus
#   system    commands for a booted system on which jouled is installed and runs
#   promql    queries
#   tool      a command of another tool, which reads the powercap mirror
#
# tests/integration/examples.rs, docs.rs and powercap_mirror.rs run all but `system`; that is for tests/integration/system, and so is busctl, once more. Each
# command of these two is one line.
set -euo pipefail
cd "$(dirname "$0")/../../.."
kind=${1:?examples.sh KIND [FOLDER]}
folder=${2:-}

# PAGE:LINE and a tab before each line of an example.
examples() {
    awk -v kind="$kind" '
        FNR == 1 { on = armed = 0; place = FILENAME; gsub("/", "-", place) }
        function line(text) { print place ":" start "\t" text }
        FILENAME ~ /\.[1-8]$/ {
            if ($0 ~ /^\.\\" example: /) { armed = ($NF == kind) }
            else if (armed && /^\.Bd -literal/) { on = 1; armed = 0; start = FNR + 1 }
            else if (on && /^\.Ed/) { on = 0 }
            else if (on) {
                text = $0
                gsub(/\\&/, "", text); gsub(/\\\(dq/, "\"", text); gsub(/\\-/, "-", text); gsub(/\\\(aq/, "\047", text); gsub(/\\e/, "\\", text)
                line(text)
            }
            next
        }
        /^```/ { if (on) on = 0; else if ($0 == "```" kind) { on = 1; start = FNR + 1 }; next }
        on { line($0) }
    ' man/*.[1-8] README.md docs/*.md
}

if [ -n "$folder" ]; then
    examples | while IFS=$'\t' read -r place text; do printf '%s\n' "$text" >>"$folder/$place"; done
else
    # Without what a shell would not run: comments, and the lines of a command that go on are one.
    examples | cut -f 2- | sed -e ':join' -e '/\\$/{N;s/\\\n */ /;b join' -e '}' | sed -E 's/[[:space:]]+# .*$//; /^(#.*)?$/d'
fi
