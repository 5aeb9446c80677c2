#!/bin/sh
# Make a virtual environment with the first Python that limelight runs on, or say in one line why that cannot be.
#   sh requirements/create-venv.sh PLACE        PYTHON=/path/to/python names the one to take
set -eu
place=$1

# A name on the PATH is no promise: version managers leave launchers for versions that are not in use.
version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

seen=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    version=$(version_of "$candidate")
    case $version in
    3.11 | 3.12 | 3.13)
        if ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate cannot make virtual environments: its ensurepip is missing (Debian and Ubuntu package it apart). Run: apt install python$version-venv" >&2
            exit 1
        fi
        # An environment whose Python has gone, or was of another version, is made anew.
        clear=
        if [ -f "$place/pyvenv.cfg" ] && [ "$(version_of "$place/bin/python")" != "$version" ]; then
            clear=--clear
        fi
        exec "$candidate" -m venv $clear "$place"
        ;;
    ?*) seen="$seen $candidate is $version," ;;
    *) seen="$seen $candidate does not run," ;;
    esac
done
echo "limelight needs Python 3.11, 3.12 or 3.13. Found:${seen%,}. Install one of them, or name it: make PYTHON=/path/to/python3.12" >&2
exit 1
