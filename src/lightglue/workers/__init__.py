"""Many jobs on one machine: who does them, in how many processes."""
