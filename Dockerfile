# A static binary in an empty image:
#
#     docker build -t shardcast .
#     docker run --network host --security-opt seccomp=tools/docker/seccomp.json -e ANNOUNCED_IP=192.0.2.7 shardcast
#
# README.md, "Containers", says why the host's network.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The target's name keeps `crt-static` from the build scripts, which must be dynamic.
RUN target=$(rustc --print host-tuple) \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" \
    && strip -o /shardcast "target/$target/release/shardcast"

# It needs no file but /dev/urandom, which the engine provides.
FROM scratch
COPY --from=build /shardcast /shardcast
# Nobody in particular, without a right or a file.
USER 65532:65532
ENV NODE_ENV=production
EXPOSE 3000/tcp 10000/udp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/shardcast"]
