# syntax=docker/dockerfile:1
# For those who have Docker: `docker build -t tekton-wrap .`, or for several architectures `docker buildx build --platform
# linux/amd64,linux/arm64 …`. images/build makes the same image without it.
FROM docker.io/library/rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
ARG COMMIT=unknown
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    target=$(rustc -vV | sed -n 's/^host: //p') && \
    TEKTON_WRAP_COMMIT=$COMMIT RUSTFLAGS="-C target-feature=+crt-static" \
        cargo build --release --locked --target "$target" --target-dir /build && \
    install -D -m 755 "/build/$target/release/tekton-wrap" /root-fs/tekton-wrap/bin/tekton-wrap

# Nothing but one static binary. No user is named: an injected step runs as the user's steps do (src/wrap/security.rs).
FROM scratch
ARG COMMIT=unknown
ARG VERSION=0.1.0
ARG SOURCE_URL=https://github.com/tekton-wrap/tekton-wrap
LABEL org.opencontainers.image.title=tekton-wrap \
      org.opencontainers.image.description="Runs Tekton Pipelines without PersistentVolumeClaims" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$COMMIT \
      org.opencontainers.image.source=$SOURCE_URL
COPY --from=build /root-fs/ /
WORKDIR /
ENTRYPOINT ["/tekton-wrap/bin/tekton-wrap"]
