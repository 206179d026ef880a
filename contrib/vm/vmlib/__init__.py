"""What `contrib/vm/vm` is made of; see README.md beside it."""
