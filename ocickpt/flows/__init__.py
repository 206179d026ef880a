"""Checkpoint, restore, push, pull …: the only place that knows all the rooms below it."""
