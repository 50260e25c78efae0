# The relay as an image: build it with `docker build -t relay .`, run it with `docker compose up`
# or `docker run --rm -p 8443:8443 relay`. Settings are RELAY_ variables; config/relay.env explains each.

ARG SWIFT_IMAGE=swift:6.3-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim

# ---- Build ----

FROM ${SWIFT_IMAGE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libseccomp-dev libsodium-dev libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# Dependencies in layers of their own: a change of ours does not fetch them again.
COPY Package.swift Package.resolved* ./
RUN swift package resolve
# Tests are not built, but the package's description names their folders.
COPY Sources Sources
COPY Tests Tests
# With Swift's own libraries inside, the programs need no toolchain where they run.
RUN swift build --configuration release --static-swift-stdlib --disable-local-rpath --product relay \
    && swift build --configuration release --static-swift-stdlib --disable-local-rpath --product relay-worker \
    && mkdir /relay \
    && install --strip .build/release/relay .build/release/relay-worker /relay/

# ---- Run ----

# The same Debian release as above: the programs are linked with its libseccomp, libssl, libsodium and libstdc++.
FROM ${DEBIAN_IMAGE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libseccomp2 libsodium23 libssl3 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 relay \
    && useradd --uid 10001 --gid relay --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin relay
# relay looks for relay-worker beside itself.
COPY --from=build /relay/ /usr/local/bin/
# By number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
EXPOSE 8443
# Closes every connection with code 1001, then exits 0.
STOPSIGNAL SIGTERM
# Asks the supervisor, by way of its Unix socket: healthy while any worker serves.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["relay", "health"]
ENTRYPOINT ["/usr/local/bin/relay"]
