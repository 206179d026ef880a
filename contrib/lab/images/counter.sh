#!/bin/sh
# Counts, a line a second; writes the last number to /tmp/count too.
i=0
trap 'exit 0' TERM
while :; do
    echo "$i"
    echo "$i" >/tmp/count
    i=$((i + 1))
    sleep 1
done
