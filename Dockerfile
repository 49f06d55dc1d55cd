# One image for every role; compose.yaml says which (serve, worker, scheduler, migrate).
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

RUN useradd --system --uid 10001 --home-dir /var/lib/quittance --create-home quittance

WORKDIR /opt/quittance
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock

# Installed in place: templates, migrations and the built widget are read from the source tree.
COPY . .
RUN pip install --no-deps --no-build-isolation --no-index --editable . \
    && python -m compileall -q app connectors migrations

USER quittance
ENV QUITTANCE_DATA_DIR=/var/lib/quittance \
    QUITTANCE_HOST=0.0.0.0 \
    QUITTANCE_PORT=8321
VOLUME /var/lib/quittance
EXPOSE 8321

HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"QUITTANCE_PORT\"]}/readyz', timeout=4)"]

ENTRYPOINT ["quittance"]
CMD ["serve"]
