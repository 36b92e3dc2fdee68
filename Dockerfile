# One image for every program: `docker run routines api | ticker | worker | migrate | …`.
# Pin it further where you can reach a registry: --build-arg PYTHON_IMAGE=python:VERSION@sha256:DIGEST
# With extras: --build-arg EXTRAS="temporal s3"
ARG PYTHON_IMAGE=python:3.13.11-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ARG EXTRAS=""
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/routines && python -m venv /opt/build
# Dependencies get their own layer, so a change to the source does not reinstall them. Each file is checked against its hash,
# and none is built from source.
COPY locks locks
RUN /opt/routines/bin/python -m pip install --require-hashes --only-binary :all: $(printf ' --requirement locks/%s.lock' requirements $EXTRAS) \
 && /opt/build/bin/python -m pip install --require-hashes --only-binary :all: --requirement locks/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY sql sql
COPY src src
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir wheels . \
 && /opt/routines/bin/python -m pip install --no-deps --no-index wheels/*.whl

FROM ${PYTHON_IMAGE}
# tini passes signals on from the first moment, also while Python itself starts, and reaps what is left behind.
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
RUN groupadd --system --gid 10001 routines \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent routines \
 && install --directory --owner routines --group routines --mode 0700 /files
COPY --from=build /opt/routines /opt/routines
ENV PATH=/opt/routines/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ROUTINES_HOST=0.0.0.0 \
    ROUTINES_LOG_FORMAT=json
USER routines
EXPOSE 8080
STOPSIGNAL SIGTERM
# Checks the API, the default program; compose.yaml has checks for the others. Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-m", "routines_cli.probe", "/readyz"]
ENTRYPOINT ["tini", "-s", "--", "routines"]
CMD ["api"]
