"""What a schema does not see in a list of manifests: names that nothing bears, selectors that fit nothing, secrets.

The API server takes all of this and then waits for ever. Entry: ``manifests.check``.
"""
