"""How far runs are: statuses, postings, one console."""
