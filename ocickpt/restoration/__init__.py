"""An artifact becomes a running container, for a restore or in the place of a start; knows nothing of saving."""
