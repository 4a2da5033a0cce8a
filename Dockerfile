# syntax=docker/dockerfile:1
# The operator's image for those who build with Docker: the files are those of `cargo image`. For several platforms:
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION=$(git rev-parse HEAD) .

# Runs on the machine's own platform, and compiles for another one where asked to.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
ARG BUILDARCH
ARG TARGETARCH
# ring has some C, and so has the allocator on amd64: a compiler for the target is needed.
RUN set -eu; \
    case $TARGETARCH in \
      amd64) rust=x86_64 compiler=x86-64 ;; \
      arm64) rust=aarch64 compiler=aarch64 ;; \
      *) echo "there is no image for $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    packages="musl-tools make" gcc=musl-gcc linker=cc; \
    if [ "$BUILDARCH" != "$TARGETARCH" ]; then \
      packages="gcc-$compiler-linux-gnu libc6-dev-$TARGETARCH-cross" gcc=$rust-linux-gnu-gcc linker=$rust-linux-gnu-gcc; \
    fi; \
    apt-get update; \
    apt-get install --yes --no-install-recommends $packages; \
    rm -rf /var/lib/apt/lists/*; \
    ln -s "$(command -v $gcc)" /usr/local/bin/target-gcc; \
    ln -s "$(command -v $linker)" /usr/local/bin/target-linker; \
    rustup target add $rust-unknown-linux-musl
ENV CC_x86_64_unknown_linux_musl=target-gcc \
    CC_aarch64_unknown_linux_musl=target-gcc \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=target-linker \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=target-linker
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target,id=target-$TARGETARCH \
    cargo image --arch "$TARGETARCH" --rootfs /rootfs

FROM scratch
ARG VERSION=0.2.0
ARG REVISION
LABEL org.opencontainers.image.title="verteil-token-operator" \
      org.opencontainers.image.description="Keeps one OAuth2 access token in a Kubernetes Secret and asks for a new one only when the stored one has reached its end" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /rootfs/ /
USER 65532:65532
ENTRYPOINT ["/verteil-token-operator"]
