# Builds one binary and puts it on an image that has no shell and no package manager.
#
#   docker build -t grantd .
#   podman build --format docker -t grantd .        the default format of Podman has no HEALTHCHECK
#
# It needs BuildKit (the default since Docker 23; before that, DOCKER_BUILDKIT=1).
# Both images are arguments, so that a site can use its own copies, and so are their digests: tags move, and a release
# names what it was built from (docs/guides/release.md). They must share a glibc: both are Debian 12.
ARG BUILDER_IMAGE=rust:1.95-bookworm
ARG BUILDER_DIGEST=
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot
ARG RUNTIME_DIGEST=

FROM ${BUILDER_IMAGE}${BUILDER_DIGEST:+@$BUILDER_DIGEST} AS build
WORKDIR /build
COPY . .
# Cache mounts keep downloaded crates and compiled dependencies between builds. They are not
# part of any layer, so the binary is copied out before the mount goes away.
# The touch: cargo compares times, and a checkout may carry sources older than the cache.
# The data directory is made here because the runtime image cannot run mkdir.
RUN --mount=type=cache,id=grantd-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=grantd-git,target=/usr/local/cargo/git \
    --mount=type=cache,id=grantd-target,target=/build/target,sharing=locked \
    touch src/lib.rs src/main.rs crates/*/src/lib.rs \
    && cargo build --release --locked --bin grantd \
    && install -D -m 0755 target/release/grantd /out/grantd \
    && install -d /out/data

FROM ${RUNTIME_IMAGE}${RUNTIME_DIGEST:+@$RUNTIME_DIGEST}
COPY --from=build /out/grantd /usr/local/bin/grantd
# Owned by the daemon's user, so that a fresh named volume mounted here is writable for it.
# No VOLUME: with PostgreSQL nothing is stored here, and an anonymous volume is easily lost.
COPY --from=build --chown=65532:65532 /out/data /var/lib/grantd

# In a container, loopback would reach nobody. What is left to the operator, because no default
# is safe, and what `serve` refuses to start without:
#   GRANTD__ISSUER             the https address that clients use
#   GRANTD__SERVER__CLEARTEXT  behind-proxy, when something in front ends TLS; or else
#   GRANTD__SERVER__TLS__CERT_FILE and GRANTD__SERVER__TLS__KEY_FILE
# The admin port answers health and metrics without a password: do not publish it to the world.
ENV GRANTD__DATA_DIR=/var/lib/grantd \
    GRANTD__SERVER__LISTEN=0.0.0.0:8080 \
    GRANTD__ADMIN__LISTEN=0.0.0.0:9090

# Numbers, not names: Kubernetes can prove that a number is not root.
USER 65532:65532
WORKDIR /var/lib/grantd
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/grantd", "health"]
ENTRYPOINT ["/usr/local/bin/grantd"]
CMD ["serve"]

# Last, because they change with every commit and would spoil the cache above. These two are those of the FROM above.
ARG RUNTIME_IMAGE
ARG RUNTIME_DIGEST
ARG VERSION=unknown
ARG REVISION=unknown
# RFC 3339, such as 2026-01-31T12:00:00Z.
ARG CREATED=
# Addresses of the project's repository, page and manual.
ARG SOURCE=
ARG URL=
ARG DOCUMENTATION=
LABEL org.opencontainers.image.title="grantd" \
      org.opencontainers.image.description="An OAuth 2.0 authorization server for machines: client_credentials in, signed access tokens out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="${URL}" \
      org.opencontainers.image.documentation="${DOCUMENTATION}" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}" \
      org.opencontainers.image.base.digest="${RUNTIME_DIGEST}"
