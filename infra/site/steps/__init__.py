"""The steps that machines and a cluster need, one module each; :mod:`infra.site.plan` puts them in order."""
