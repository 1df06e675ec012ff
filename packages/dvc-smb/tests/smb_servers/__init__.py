"""Real servers for the tests and the benchmarks: Debian's smbd, and a TCP proxy that delays, cuts and alters."""
