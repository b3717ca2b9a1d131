"""Who interacts with whom, from trajectories: neural relational inference and its baselines."""
