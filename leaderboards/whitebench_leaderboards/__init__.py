"""whitebench_leaderboards: from a suite's results to a board that says how sure it is."""
