# The server alone: MongoDB and Orthanc are other containers, see compose.yaml.
FROM node:20-bookworm-slim AS web
WORKDIR /web
COPY graph/web/package.json graph/web/package-lock.json graph/web/.npmrc ./
RUN npm ci --omit=dev --ignore-scripts

FROM python:3.11-slim-bookworm AS build
WORKDIR /source
RUN python -m venv /opt/orthanc-graphql
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY graph graph
COPY --from=web /web/node_modules graph/web/node_modules
COPY models models
COPY services services
RUN /opt/orthanc-graphql/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.11-slim-bookworm
RUN useradd --system --create-home --home-dir /var/lib/orthanc-graphql orthanc-graphql \
  && install -d -o orthanc-graphql -m 0700 /var/lib/orthanc-graphql/data \
    /var/lib/orthanc-graphql/spool
COPY --from=build /opt/orthanc-graphql /opt/orthanc-graphql
ENV PATH=/opt/orthanc-graphql/bin:$PATH PYTHONUNBUFFERED=1 DATA_DIR=/var/lib/orthanc-graphql/data \
  TMPDIR=/var/lib/orthanc-graphql/spool
USER orthanc-graphql
WORKDIR /var/lib/orthanc-graphql
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["orthanc-graphql", "serve", "--host", "0.0.0.0", "--port", "8000"]
