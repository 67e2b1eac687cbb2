# The EscrowMQ broker. See docs/containers.md for how to build and run it.
#
# Nothing here needs BuildKit: engine 20.10 builds it with and without.

# Node 24 has SQLite built in: better-sqlite3 and its compiler are not needed.
ARG NODE_IMAGE=node:24-slim

# What the two npm stages share. The final stage is not made from it, so neither argument is in the
# image or its history; both are in the build cache of the machine that builds.
FROM ${NODE_IMAGE} AS npm
WORKDIR /build
# PEM certificates to trust besides Node's own, for a build behind a private certificate authority.
ARG EXTRA_CA=""
# Lines for npm's configuration, such as registry=https://npm.example.com/
ARG NPMRC=""
ENV NODE_EXTRA_CA_CERTS=/etc/extra-ca.pem
RUN printf '%s\n' "$EXTRA_CA" > "$NODE_EXTRA_CA_CERTS" && printf '%s\n' "$NPMRC" > "$HOME/.npmrc"
COPY package.json package-lock.json ./
COPY protocol/package.json protocol/
COPY database/package.json database/
COPY consumer-sdk/package.json consumer-sdk/
COPY broker/package.json broker/

FROM npm AS build
RUN npm ci --ignore-scripts --omit=optional --no-audit --no-fund \
  --include-workspace-root --workspace=broker
COPY tsconfig.base.json ./
COPY protocol protocol
COPY database database
COPY consumer-sdk consumer-sdk
COPY broker broker
RUN npx tsc -b broker

FROM npm AS production
RUN npm ci --ignore-scripts --omit=dev --omit=optional --no-audit --no-fund --workspace=broker
COPY --from=build /build/protocol/dist protocol/dist
COPY --from=build /build/database/dist database/dist
COPY --from=build /build/consumer-sdk/dist consumer-sdk/dist
COPY --from=build /build/broker/dist broker/dist
# A checkout made under a strict umask has files that only their owner may read.
RUN chmod --recursive a+rX .

FROM ${NODE_IMAGE}
LABEL org.opencontainers.image.title="EscrowMQ broker" \
  org.opencontainers.image.description="A transactional-message broker on RabbitMQ" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="0.2.0"

# A number, because Kubernetes can't tell whether a name is root. A new volume at /data takes this
# folder's owner.
RUN mkdir /data && chown 10001:10001 /data
COPY --from=production /build /app
ENV NODE_ENV=production

# Others can reach this address, so the broker refuses to start without ESCROW_API_KEYS.
ENV ESCROW_LISTEN=0.0.0.0:7171
EXPOSE 7171

# The default store is escrow.db in the working directory. Were ESCROW_STORE set here instead, it
# would contradict an ESCROW_STORE_FILE.
WORKDIR /data
USER 10001:10001

# The slim image has no curl. Liveness only: an engine that restarts the broker while its database
# is away helps nobody.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["node", "--eval", "\
  const port = process.env.ESCROW_LISTEN.split(':').at(-1);\
  require('node:http').get({ host: '127.0.0.1', port, path: '/livez' }, ({ statusCode }) => {\
    process.exit(statusCode === 200 ? 0 : 1);\
  }).on('error', () => process.exit(1));"]

# No shell in between: the broker is the process that the signal reaches.
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "--max-semi-space-size=64", "/app/broker/dist/main.js"]
