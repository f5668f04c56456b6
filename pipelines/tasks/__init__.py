"""One folder a task: its data, its network, and the task itself."""
