# The service and its workers in one image; compose says which of them a container is.
#
#   docker build -t datapruner:0.1.0-cpu .
#   docker build -t datapruner:0.1.0-gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#
# The GPU image needs no CUDA base: PyTorch's wheels bring the CUDA libraries, the host brings the driver and
# nvidia-container-toolkit. To pin the base by content, pass its digest, which
# `docker buildx imagetools inspect python:3.12.13-slim-trixie` shows:
#   --build-arg PYTHON_IMAGE=python:3.12.13-slim-trixie@sha256:…
ARG PYTHON_IMAGE=python:3.12.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_INPUT=1 \
    PATH=/opt/datapruner/bin:$PATH
RUN python -m venv /opt/datapruner
WORKDIR /src
# What changes seldom comes first, so that a change of the source does not download gigabytes again.
COPY pyproject.toml constraints.txt ./
# Only PyTorch itself from its index; the libraries that it asks for come from the usual one, below.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --index-url "${TORCH_INDEX}" --constraint constraints.txt torch
COPY <<"EOF" requirements.py
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras["postgres"], *extras["s3"], sep="\n")
EOF
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps .

# The default proxy model, so that a container can start without a network.
FROM build AS model
RUN DATAPRUNER_HOME=/models datapruner models pull smollm2-135m

FROM ${PYTHON_IMAGE} AS runtime
RUN groupadd --gid 10001 datapruner \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin datapruner \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data /data/tmp
COPY --from=build /opt/datapruner /opt/datapruner
# A new named volume starts as a copy of this folder: with the model, and with the right owner.
COPY --from=model --chown=10001:10001 /models /data
# Everything that is written goes to /data; the rest of the file system can be read-only. Large uploads are
# spooled to TMPDIR, so that is a disk as well, not memory.
ENV PATH=/opt/datapruner/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    TMPDIR=/data/tmp \
    XDG_CACHE_HOME=/data/.cache \
    HF_HOME=/data/huggingface \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    DATAPRUNER_HOME=/data \
    DATAPRUNER_HOST=0.0.0.0 \
    DATAPRUNER_LOG_FORMAT=json
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --start-interval=2s --retries=3 \
    CMD ["python", "-P", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/v1/ready', timeout=14)"]
ENTRYPOINT ["datapruner"]
CMD ["serve"]
