"""Running a recorded run again, and judging whether the result is the same."""
