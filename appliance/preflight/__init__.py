"""What a machine is good for, found out without changing anything on it: before a deploy, and at each start."""
