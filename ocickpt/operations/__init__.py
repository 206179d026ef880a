"""What ocickpt is at on this host: the journal, the channel between a flow and the shim, what was interrupted."""
