FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml ./
COPY scripts/setup scripts/
RUN scripts/setup
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin tautline && cp target/release/tautline /usr/local/bin/

# The same Debian as the build stage: its glibc and its OpenSSL are what the binary was linked to.
FROM debian:bookworm-20260812-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/tautline --create-home tautline
COPY --from=build /usr/local/bin/tautline /usr/local/bin/
COPY rules /etc/tautline/rules
USER 10001
WORKDIR /var/lib/tautline
EXPOSE 9464
# Bash opens the connection itself, so the image needs no HTTP client.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["bash", "-c", \
  "exec 3<>/dev/tcp/127.0.0.1/9464 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200'"]
ENTRYPOINT ["tautline"]
CMD ["run", "--config", "/etc/tautline/tautline.toml"]
