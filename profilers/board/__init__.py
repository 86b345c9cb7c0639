"""What times files on a machine, however it is reached: the agent, other timers, checks, installing."""
