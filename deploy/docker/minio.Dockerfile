# MinIO, built from its source: there are no more images of its community edition.

FROM golang:1.25.5-alpine3.22 AS build
ENV CGO_ENABLED=0
RUN go install -trimpath -tags=disable_grpc_modules -ldflags="-s -w" github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c

FROM alpine:3.22.2
RUN adduser -D -H -u 10002 -s /sbin/nologin minio \
    && install -d -o minio -g minio /data
COPY --from=build /go/bin/minio /usr/local/bin/minio
USER 10002
EXPOSE 9000
CMD ["minio", "server", "--quiet", "--address", ":9000", "--certs-dir", "/tmp/certs", "/data"]
