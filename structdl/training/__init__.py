"""The floor that trains: Task, step, loop, stopping rules, checkpoints, logs, command line."""
