"""Why a run on the cluster failed or does not begin, in one sentence.

``evidence`` reads facts from the cluster, the modules named by a family of troubles turn facts into a
``record.Diagnosis``, ``causes`` asks them in order: the root cause first.
"""
