# One image for every program: `docker run routines api | ticker | worker | migrate | …`.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
RUN python -m venv /opt/routines
# Dependencies get their own layer, so a change to the source does not reinstall them.
COPY constraints.txt pyproject.toml ./
RUN /opt/routines/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > dependencies.txt \
 && /opt/routines/bin/python -m pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt --requirement dependencies.txt
COPY README.md LICENSE ./
COPY sql sql
COPY src src
RUN /opt/routines/bin/python -m pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt --no-deps .

FROM ${PYTHON_IMAGE}
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
# Checks the API, the default program; compose.yaml has checks for the others.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('ROUTINES_PORT', '8080')}/api/v1/health\", timeout=4)"]
ENTRYPOINT ["routines"]
CMD ["api"]
