# One target per binary, the sidecar last and so the default:
#
#   docker build --build-arg VERSION=v1.2.3 -t svidecar .
#
# The build image is named by tag so that a checkout builds with the newest
# patch of Go. A release pins the digest it was built from:
#
#   docker build --build-arg GO_IMAGE=golang:1.26@sha256:... .
ARG GO_IMAGE=golang:1.26

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -tags grpcnotrace -ldflags "-s -w -X main.release=$VERSION" -o /out/ ./cmd/... ./examples/...

# What every image has: roots to verify Entra by, a user that owns nothing, no
# shell. Nothing is written, so the root file system can be read-only.
FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
USER 65532:65532
ARG VERSION=dev
LABEL org.opencontainers.image.source="https://github.com/svidecar/svidecar" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"

# Another binary is another four lines like these, above this one.
FROM base AS svidecar-webhook
LABEL org.opencontainers.image.title="svidecar-webhook" \
      org.opencontainers.image.description="Adds svidecar to Kubernetes pods that ask for it"
COPY --from=build /out/svidecar-webhook /svidecar-webhook
EXPOSE 9443
ENTRYPOINT ["/svidecar-webhook"]

FROM base AS whoami
LABEL org.opencontainers.image.title="whoami" \
      org.opencontainers.image.description="Example of an app that knows managed identity alone"
COPY --from=build /out/whoami /whoami
ENTRYPOINT ["/whoami"]

FROM base AS svidecar
LABEL org.opencontainers.image.title="svidecar" \
      org.opencontainers.image.description="Local credential sidecar for Microsoft Entra ID"
COPY --from=build /out/svidecar /svidecar
EXPOSE 8000
ENTRYPOINT ["/svidecar"]
CMD ["serve"]
