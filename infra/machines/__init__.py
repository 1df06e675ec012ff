"""Machines of a site: how they are logged in to, what they are asked, how virtual ones are made."""
