# The one image that trains, detects and runs flows. The base is an argument, so that it builds from a local one:
#   podman build --build-arg BASE=localhost/python:3.12 -t kubernetes-mlops .
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS environment
WORKDIR /opt/mlops
COPY requirements.lock ./
RUN python3 -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps \
       -r requirements.lock

FROM ${BASE}
ARG COMMIT=unknown
ARG LOCK_SHA256=unknown
LABEL org.opencontainers.image.revision=${COMMIT} \
      org.opencontainers.image.licenses=AGPL-3.0-only \
      mlops.requirements.lock.sha256=${LOCK_SHA256}
RUN useradd --create-home --uid 10001 mlops
WORKDIR /opt/mlops
COPY --from=environment /opt/mlops/.venv .venv
COPY --chown=mlops:mlops . .
RUN .venv/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation ./packages/dvc-smb
ENV PATH=/opt/mlops/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=true \
    DVC_NO_ANALYTICS=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    ORT_DISABLE_TELEMETRY=1 \
    YOLO_OFFLINE=true
USER mlops
CMD ["python", "-m", "cli", "--help"]
