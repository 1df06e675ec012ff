"""From bare machines to a site: what each machine still needs, told like a diff, done, and seen to hold."""
