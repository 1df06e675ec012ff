"""The embedded stack: Prefect server, MLflow server and a worker on this machine, all state in one folder.

``start.up`` and ``stop.down`` change it, ``state.load_stack`` and ``environment.client_environment`` tell others where
it is, ``overview`` and ``checks`` look at it; ``identity`` tells its servers from another's at the same ports. The
children are the modules ``prefect_server``, ``mlflow_server``, ``worker`` and ``provision``.
"""
