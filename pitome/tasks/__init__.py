"""What is evaluated and trained: one folder per task, and what the tasks share."""
