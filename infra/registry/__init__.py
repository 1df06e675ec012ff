"""The registry of images, from a client's side: the API over HTTPS, logins, what nodes need to pull."""
