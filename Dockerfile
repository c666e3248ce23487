# The sidecar image, to build a server's image FROM:
#
#     docker build --target sidecar -t sidecar .
#
# and a demonstration of it, gunicorn serving examples/hello:
#
#     docker build --target example -t sidecar-example .
#
# PYTHON_IMAGE is any image with a python3 >= 3.11 that can make a venv.
ARG PYTHON_IMAGE=python:3.13-slim


FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
WORKDIR /src

# Two environments: one that has pip and builds the wheel, and the one that is shipped, which has sidecar and what it needs.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/sidecar

# What is needed changes less often than the code: a layer of its own, installed from pyproject.toml's own lists.
COPY pyproject.toml ./
RUN python3 -c 'import tomllib; said = tomllib.load(open("pyproject.toml", "rb")); \
print(*said["build-system"]["requires"], "wheel", sep="\n", file=open("/opt/build.txt", "w")); \
print(*said["project"]["dependencies"], sep="\n", file=open("/opt/sidecar.txt", "w"))' \
 && /opt/build/bin/pip install -r /opt/build.txt \
 && /opt/build/bin/pip --python /opt/sidecar/bin/python3 install -r /opt/sidecar.txt

COPY README.md ./
COPY sidecar sidecar
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . \
 && /opt/build/bin/pip --python /opt/sidecar/bin/python3 install --no-deps --no-index /opt/wheels/*.whl

# Byte-compiled here, as nobody can write there: start-up would compile everything anew each time. Unchecked, because nothing
# in an image is edited in place.
#
# -I: PID 1 sees nothing of the program's PYTHONPATH, so no file of an application (its own yaml.py, say) can break it.
RUN /opt/sidecar/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /opt/sidecar/lib \
 && sed -i '1s|$| -I|' /opt/sidecar/bin/sidecar /opt/sidecar/bin/start_server


FROM ${PYTHON_IMAGE} AS sidecar
LABEL org.opencontainers.image.title="sidecar" \
      org.opencontainers.image.description="A hot-deploy supervisor for containers: binds the sockets, starts the server, swaps it without losing a request" \
      org.opencontainers.image.licenses="MIT"

# Not its whole environment on PATH, only the commands: `python3` stays the image's own, which the server's packages are for.
RUN ln -s /opt/sidecar/bin/sidecar /opt/sidecar/bin/start_server /usr/local/bin/

WORKDIR /app

# By number, so that Kubernetes' runAsNonRoot can see that it is not root. No file or directory is written to: any other
# number and a read-only root do as well.
USER 1000:1000

STOPSIGNAL SIGTERM
ENTRYPOINT ["sidecar", "run"]

# To where it was made: an environment does not survive being moved. Last, because it is all that changes.
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
