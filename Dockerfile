# The server alone: MongoDB and Orthanc are other containers, see compose.yaml.
FROM node:20.19.5-bookworm-slim AS web
WORKDIR /web
COPY graph/web/package.json graph/web/package-lock.json graph/web/.npmrc ./
RUN npm ci --omit=dev --ignore-scripts

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /source
RUN python -m venv /opt/orthanc-graphql
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY graph graph
COPY --from=web /web/node_modules graph/web/node_modules
COPY models models
COPY services services
RUN /opt/orthanc-graphql/bin/pip install --no-cache-dir --constraint constraints.txt '.[otel]'

FROM python:3.11.14-slim-bookworm
# New volumes get owner and mode of the folders that they are mounted on.
RUN useradd --uid 10001 --user-group --create-home --home-dir /var/lib/orthanc-graphql orthanc-graphql \
  && install -d -o orthanc-graphql -g orthanc-graphql -m 0700 \
    /var/lib/orthanc-graphql/data /var/lib/orthanc-graphql/spool \
  && install -d -o orthanc-graphql -g orthanc-graphql -m 0755 \
    /secrets/server /secrets/mongodb /secrets/orthanc
COPY --from=build /opt/orthanc-graphql /opt/orthanc-graphql
ENV PATH=/opt/orthanc-graphql/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
  DATA_DIR=/var/lib/orthanc-graphql/data TMPDIR=/var/lib/orthanc-graphql/spool
USER 10001:10001
WORKDIR /var/lib/orthanc-graphql
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s \
  CMD ["orthanc-graphql", "health"]
CMD ["orthanc-graphql", "serve", "--host", "0.0.0.0", "--port", "8000"]
