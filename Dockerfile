# The one image that trains, detects and runs flows. `mlops build-image` builds it from exactly one commit; by hand, from
# a base with Python 3.11 to 3.13 and its venv module:
#   podman build --build-arg BASE=localhost/python:3.12 -t kubernetes-mlops .
# Arguments: TORCH=cpu leaves CUDA out and takes torch from TORCH_INDEX; LOCK is another lock file.
# Build secrets, for a package index of one's own: `pip.conf` and `ca.pem`. Neither gets into the image.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS tools
ARG LOCK=requirements.lock
WORKDIR /build
COPY infra/image/lock.py pyproject.toml ./
COPY ${LOCK} requirements.lock
COPY packages packages
# pip, and what builds our own package: none of it gets into the image.
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    set -eu; \
    [ ! -s /run/secrets/pip.conf ] || export PIP_CONFIG_FILE=/run/secrets/pip.conf; \
    [ ! -s /run/secrets/ca.pem ] || export PIP_CERT=/run/secrets/ca.pem; \
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore; \
    python3 lock.py requirements.lock pyproject.toml tools > tools.txt; \
    python3 -m venv venv; \
    venv/bin/pip install --require-hashes --no-deps --requirement tools.txt; \
    venv/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wanted ./packages/dvc-smb
ARG TORCH=cuda
RUN python3 lock.py requirements.lock pyproject.toml runtime "${TORCH}" > wanted/runtime.txt \
    && python3 lock.py requirements.lock pyproject.toml torch "${TORCH}" > wanted/torch.txt

FROM ${BASE}
# A number, so that a cluster can see that it is not root; in /etc/passwd, because libraries ask for a name and a home.
RUN echo 'mlops:x:10001:10001:mlops:/home/mlops:/bin/sh' >> /etc/passwd \
    && echo 'mlops:x:10001:' >> /etc/group \
    && mkdir -p /home/mlops /opt/mlops \
    && chown 10001:10001 /home/mlops /opt/mlops
WORKDIR /opt/mlops
# Copied and not only mounted: by these files a builder knows whether the layer below is still the right one.
COPY --from=tools /build/wanted /usr/local/share/mlops
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Installed where it stays: copied from another stage, CUDA would be packed twice. Every file is one that the lock names
# by its hash, but torch without CUDA: the lock knows the files on PyPI only, so that of the other index has the lock's
# version, and no hash. Modules are compiled by all processors at once; some packages have files that are no Python of
# this version.
RUN --mount=type=bind,from=tools,source=/build,target=/build \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    set -eu; \
    [ ! -s /run/secrets/pip.conf ] || export PIP_CONFIG_FILE=/run/secrets/pip.conf; \
    [ ! -s /run/secrets/ca.pem ] || export PIP_CERT=/run/secrets/ca.pem; \
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_NO_INPUT=1; \
    export PIP_ROOT_USER_ACTION=ignore; \
    python3 -m venv --without-pip .venv; \
    cd /usr/local/share/mlops; \
    into="/build/venv/bin/pip --python /opt/mlops/.venv/bin/python install --no-deps"; \
    $into --require-hashes --requirement runtime.txt; \
    [ ! -s torch.txt ] || $into --extra-index-url "${TORCH_INDEX}" --requirement torch.txt; \
    $into --no-index ./*.whl; \
    python3 -m compileall -q -j 0 /opt/mlops/.venv/lib > /dev/null || true
COPY --chown=10001:10001 . .
ENV PATH=/opt/mlops/.venv/bin:$PATH \
    HOME=/home/mlops \
    PYTHONPATH=/opt/mlops \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=true \
    DVC_NO_ANALYTICS=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    ORT_DISABLE_TELEMETRY=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    YOLO_OFFLINE=true
USER 10001:10001
# Without compiled modules each pod would compile them anew.
RUN python -m compileall -q cli configs flows infra ml tasks
ARG COMMIT=unknown
ARG LOCK_SHA256=unknown
LABEL org.opencontainers.image.title=kubernetes-mlops \
      org.opencontainers.image.revision=${COMMIT} \
      org.opencontainers.image.licenses=AGPL-3.0-only \
      mlops.requirements.lock.sha256=${LOCK_SHA256}
CMD ["python", "-m", "cli", "--help"]
