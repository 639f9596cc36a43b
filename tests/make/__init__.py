"""Writers of miniature datasets, runs and videos, and what else several tests share."""
