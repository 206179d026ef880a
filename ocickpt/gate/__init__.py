"""What stands between an artifact and a process: what CRIU would read is checked before, the kernel is asked after.

CRIU rebuilds processes as root and does what its images say. So every image it would open is on a list (`images`),
and what is in it that acts on the host is held against the container's OCI specification (`expected`), never against
another image. A rule asks what a process of that specification can *reach*, not what it started as: honest processes
drop privileges and add filters. `verification` is the one call before, `confinement` the one after; how files get where
they are is unknown here.
"""
