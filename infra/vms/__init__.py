"""Virtual machines of a site: what one is to be, and the drivers that make it so on its host."""
