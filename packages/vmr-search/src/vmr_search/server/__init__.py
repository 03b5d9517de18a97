"""The search as a web server: an interface for programs, and a page on which found moments play."""
