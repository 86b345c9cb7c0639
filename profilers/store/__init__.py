"""Where measurements live: one SQLite file, its exchange with other machines, and the jobs still to do."""
