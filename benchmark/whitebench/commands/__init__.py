"""The commands: what each takes, whom it asks, what it prints. Rooms are imported inside their bodies."""
