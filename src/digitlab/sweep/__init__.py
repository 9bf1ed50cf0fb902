"""Many runs launched together: a frozen manifest, executors that nothing stops, search, summary."""
