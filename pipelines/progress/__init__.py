"""Progress of runs: statuses, postings, one console."""
