"""The lab: real hosts on one machine, each a set of namespaces over a Debian root that is built once.

Imports go down this list, never up:

| module        | what it does |
|---------------|--------------|
| `cli`         | the verbs, and what they print |
| `doctor`      | can this machine carry a lab? one line for each thing it lacks |
| `hosts`       | brings hosts up and takes them down again, without a trace |
| `images`      | makes the container images that the hosts share |
| `roots`       | builds Debian trees with mmdebstrap, once, into the cache |
| `boot`        | turns a fork of this process into the first process of a host |
| `network`     | the switch that the hosts are plugged into |
| `cgroups`     | one cgroup for each host |
| `sysctls`     | the two machine-wide settings a lab borrows, and gives back |
| `mirror`      | where this machine gets its Debian packages |
| `machine`     | runs the machine's own programs, and installs the missing ones |
| `layout`      | which hosts there are, and where everything is kept |
| `syscalls`    | what the standard library lacks: unshare, mount, pivot_root |
| `enter`       | `lab exec`: finds a host's first process and becomes a command inside |
"""
